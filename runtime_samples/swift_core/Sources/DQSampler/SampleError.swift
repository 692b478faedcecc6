/// Bad input, or a runtime that refuses: one line that says what was got, what is allowed and what to do.
public struct SampleError: Error, Equatable, CustomStringConvertible {
    public let description: String

    /// At most 1000 characters on one line. What a terminal would obey or hide becomes "?": names come out of files.
    public init(_ text: String) {
        let line = text.split(whereSeparator: \.isNewline).joined(separator: " ")
        let shown: [Character] = line.unicodeScalars.prefix(1000).map { Self.isHidden($0) ? "?" : Character($0) }
        description = String(shown)
    }

    private static func isHidden(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator: return true
        default: return false
        }
    }
}
