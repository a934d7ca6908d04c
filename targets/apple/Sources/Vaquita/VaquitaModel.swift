import CVaquita
import Foundation

/// A model. It may be used from any thread; it closes when it and its sessions are gone.
public final class VaquitaModel: @unchecked Sendable {
    let handle: OpaquePointer

    /// Opens a GGUF file.
    ///
    /// - Parameters:
    ///   - memory: of the whole process: "2GiB", "60%" or "auto". `nil` maps the file: clean mapped pages do not count
    ///     against an app's limit on iOS.
    ///   - context: tokens that a conversation may have; 0: the model's.
    ///   - sessions: at the same time, that the memory budget is to hold.
    ///   - threads: 0: one per core of the fastest cluster, bound to it.
    ///   - cache: numbers of the sessions' caches: "f16", or "q8", which takes about half the memory and costs a little
    ///     precision.
    ///   - drafts: how tokens are drafted and then checked together, which changes no answer: "auto" or "mtp:2" by the
    ///     file's multi-token-prediction layer, "lookup:4" by text that occurred before. `nil`: not at all.
    ///   - promptFolder: keeps prompts and answers, so that a conversation that begins like an earlier one starts at
    ///     once, also after the app was restarted: one of the app's own. `nil`: they are not kept.
    ///   - promptBytes: maximum size of that folder; 0: 2 GiB.
    public init(
        path: String, memory: String? = nil, context: Int = 0, sessions: Int = 1, threads: Int = 0,
        cache: String? = nil, drafts: String? = nil, promptFolder: String? = nil, promptBytes: UInt64 = 0
    ) throws {
        guard vaquita_abi_version() == UInt32(VAQUITA_ABI_VERSION) else {
            throw VaquitaError(kind: .internal, description: "the library and its header are of different versions")
        }
        var options = vaquita_model_options()
        try check(vaquita_model_options_init(&options, MemoryLayout<vaquita_model_options>.size))
        options.context = context
        options.sessions = sessions
        options.threads = threads
        options.prompt_bytes = promptBytes
        // Copies in C, until the model is open.
        let texts = [memory, cache, drafts, promptFolder].map { text in text.flatMap { strdup($0) } }
        defer { texts.forEach { free($0) } }
        options.memory = texts[0].map { UnsafePointer($0) }
        options.cache = texts[1].map { UnsafePointer($0) }
        options.drafts = texts[2].map { UnsafePointer($0) }
        options.prompt_folder = texts[3].map { UnsafePointer($0) }
        var model: OpaquePointer?
        try check(vaquita_model_open(path, &options, &model))
        handle = model!
    }

    deinit {
        // Sessions hold the model, so that there are none now.
        vaquita_model_close(handle)
    }

    /// Begins a conversation.
    public func makeSession() throws -> VaquitaSession {
        try VaquitaSession(model: self)
    }

    /// Changes the memory of the whole process, by the next layer, also while a session generates.
    public func setMemoryBudget(bytes: UInt64) throws {
        try check(vaquita_model_set_memory_budget(handle, bytes))
    }

    /// How much memory to give back.
    public enum Trim: Int32, Sendable {
        /// The app is in the background.
        case background = 0
        /// The system sent a memory warning.
        case critical = 1
    }

    /// Gives memory back until `setMemoryBudget` says otherwise.
    public func trim(_ level: Trim) {
        vaquita_model_trim(handle, level.rawValue)
    }

    /// Computes with fewer threads while the device is hot; answers stay the same. Gives the number.
    @discardableResult
    public func thermalHint(_ state: ProcessInfo.ThermalState) -> Int {
        let thermal: Int32
        switch state {
        case .nominal: thermal = VAQUITA_THERMAL_NOMINAL
        case .fair: thermal = VAQUITA_THERMAL_FAIR
        case .serious: thermal = VAQUITA_THERMAL_SERIOUS
        default: thermal = VAQUITA_THERMAL_CRITICAL
        }
        var threads = 0
        vaquita_model_thermal_hint(handle, thermal, &threads)
        return threads
    }
}
