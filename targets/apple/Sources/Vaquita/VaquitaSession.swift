import CVaquita
import Dispatch

/// How an answer is generated.
public struct VaquitaOptions: Sendable {
    /// At most so many tokens, the reasoning among them; 0: until the context is full.
    public var maxTokens = 0
    /// 0 always takes the likeliest token.
    public var temperature: Float = 0.6
    /// The likeliest tokens that together have this probability.
    public var topP: Float = 0.95
    /// The same seed gives the same answer.
    public var seed: UInt64 = 0

    public init() {}
}

/// A piece of an answer.
public enum VaquitaPiece: Sendable, Equatable {
    /// The model thinks.
    case reasoning(String)
    /// The model answers.
    case answer(String)
    /// All that came as the answer so far was reasoning.
    case wasReasoning
}

/// A conversation. Its calls wait for each other; `cancel` works at any time.
public final class VaquitaSession: @unchecked Sendable {
    private let model: VaquitaModel
    private let handle: OpaquePointer
    /// The library refuses a second call at a time; here it waits.
    private let queue = DispatchQueue(label: "vaquita.session", qos: .userInitiated)

    init(model: VaquitaModel) throws {
        var session: OpaquePointer?
        try check(vaquita_session_create(model.handle, &session))
        self.model = model
        handle = session!
    }

    deinit {
        // An answer that is being generated holds the session, so that there is none now.
        vaquita_session_close(handle)
    }

    /// Answers `user`, or what was said so far where it is `nil`. Ending the iteration, or cancelling its task, ends the
    /// answer; one that was cut short stays in the conversation.
    public func generate(
        _ user: String?, options: VaquitaOptions = VaquitaOptions()
    ) -> AsyncThrowingStream<VaquitaPiece, Error> {
        AsyncThrowingStream { continuation in
            let listener = Listener(continuation)
            continuation.onTermination = { [weak self] _ in
                listener.end()
                self?.cancel(listener)
            }
            queue.async {
                guard self.begin(listener) else { return continuation.finish() }
                defer { self.begin(nil) }
                do {
                    try self.run(user, options, listener)
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
        }
    }

    /// Ends the answer that is being generated before the next layer is computed.
    public func cancel() {
        vaquita_session_cancel(handle)
    }

    /// Sets the system prompt; an empty one removes it.
    public func setSystem(_ text: String) throws {
        try queue.sync { try check(vaquita_session_set_system(handle, text)) }
    }

    /// Sets the tools that the model may call: a list in JSON, as OpenAI's interface writes them.
    public func setTools(json: String) throws {
        try queue.sync { try check(vaquita_session_set_tools(handle, json)) }
    }

    /// Adds a message without an answer; the role is system, user, assistant or tool.
    public func addMessage(role: String, content: String) throws {
        try queue.sync { try check(vaquita_session_add_message(handle, role, content)) }
    }

    /// Forgets what was said, but for the system prompt and the tools.
    public func reset() throws {
        try queue.sync { try check(vaquita_session_reset(handle)) }
    }

    /// Writes the conversation and its cache to a file.
    public func save(to path: String) throws {
        try queue.sync { try check(vaquita_session_save(handle, path)) }
    }

    /// Goes on with a saved conversation of the same model; where that fails, this one stays.
    public func restore(from path: String) throws {
        try queue.sync { try check(vaquita_session_restore(handle, path)) }
    }

    /// What the last answer cost; a figure that was not measured is NaN.
    public func stats() throws -> vaquita_stats {
        var stats = vaquita_stats()
        stats.struct_size = MemoryLayout<vaquita_stats>.size
        try check(vaquita_session_stats(handle, &stats))
        return stats
    }

    // The answer that is at work, so that an iteration that ends late does not cancel the next answer.
    private let lock = DispatchSemaphore(value: 1)
    private var current: Listener?

    @discardableResult
    private func begin(_ listener: Listener?) -> Bool {
        lock.wait()
        defer { lock.signal() }
        current = listener
        return listener?.ended != true
    }

    private func cancel(_ listener: Listener) {
        lock.wait()
        defer { lock.signal() }
        if current === listener { vaquita_session_cancel(handle) }
    }

    private func run(_ user: String?, _ options: VaquitaOptions, _ listener: Listener) throws {
        var given = vaquita_generate_options()
        try check(vaquita_generate_options_init(&given, MemoryLayout<vaquita_generate_options>.size))
        given.max_tokens = options.maxTokens
        given.temperature = options.temperature
        given.top_p = options.topP
        given.seed = options.seed
        let data = Unmanaged.passUnretained(listener).toOpaque()
        let onEvent: vaquita_on_event = { event, data in
            guard let event, let data else { return 1 }
            return Unmanaged<Listener>.fromOpaque(data).takeUnretainedValue().take(event.pointee)
        }
        let status = withExtendedLifetime(listener) {
            vaquita_session_generate(handle, user, &given, onEvent, data)
        }
        try check(status)
    }
}

/// What a stream's events go to.
private final class Listener: @unchecked Sendable {
    private let continuation: AsyncThrowingStream<VaquitaPiece, Error>.Continuation
    private let lock = DispatchSemaphore(value: 1)
    private var over = false

    init(_ continuation: AsyncThrowingStream<VaquitaPiece, Error>.Continuation) {
        self.continuation = continuation
    }

    var ended: Bool {
        lock.wait()
        defer { lock.signal() }
        return over
    }

    func end() {
        lock.wait()
        over = true
        lock.signal()
    }

    /// Says whether to go on: 0.
    func take(_ event: vaquita_event) -> Int32 {
        let bytes = UnsafeRawBufferPointer(start: event.text, count: event.text_length)
        switch event.kind {
        case VAQUITA_EVENT_REASONING: continuation.yield(.reasoning(String(decoding: bytes, as: UTF8.self)))
        case VAQUITA_EVENT_ANSWER: continuation.yield(.answer(String(decoding: bytes, as: UTF8.self)))
        case VAQUITA_EVENT_WAS_REASONING: continuation.yield(.wasReasoning)
        default: break
        }
        return ended ? 1 : 0
    }
}
