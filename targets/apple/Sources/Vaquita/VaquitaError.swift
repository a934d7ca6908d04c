import CVaquita

/// Something failed; the message says what, and what to do.
public struct VaquitaError: Error, CustomStringConvertible {
    /// Kinds that a program can act upon: `VAQUITA_ERROR_*`.
    public enum Kind: Int32, Sendable {
        case argument = 1
        case notFound = 2
        case io = 3
        case badFile = 4
        case memory = 5
        case contextFull = 6
        case template = 7
        case model = 8
        case busy = 9
        case `internal` = 10
    }

    public let kind: Kind
    public let description: String
}

/// Throws what a call returned, unless it worked. To be called in the thread of the call, before any other.
func check(_ status: Int32) throws {
    guard status != VAQUITA_OK else { return }
    let kind = VaquitaError.Kind(rawValue: status) ?? .internal
    throw VaquitaError(kind: kind, description: String(cString: vaquita_last_error()))
}
