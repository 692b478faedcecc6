/// Bad input, or a runtime that refuses: one line that says what was got, what is allowed and what to do.
public struct SampleError: Error, Equatable, CustomStringConvertible {
    public let description: String

    /// Line breaks become spaces, since texts of the system may hold some.
    public init(_ text: String) {
        description = text.split(whereSeparator: \.isNewline).joined(separator: " ")
    }
}
