/// The words of a command line: options with a value each, and options that stand alone.
public struct OptionWords: Sendable {
    /// By option; of one that stands alone "".
    public let values: [String: String]

    /// - Parameters: arguments: without the program's name. known: options with a value. alone: options without.
    /// - Throws: SampleError: unknown, twice, or without a value.
    public init(_ arguments: [String], known: Set<String>, alone: Set<String> = []) throws {
        var values: [String: String] = [:], index = 0
        while index < arguments.count {
            let flag = arguments[index], single = alone.contains(flag)
            guard single || known.contains(flag) else {
                let allowed = known.union(alone).sorted().joined(separator: ", ")
                throw SampleError("got '\(flag)', allowed are \(allowed); see --help")
            }
            guard single || index + 1 < arguments.count else { throw SampleError("\(flag) needs a value; see --help") }
            guard values[flag] == nil else { throw SampleError("\(flag) stands there twice; give it once") }
            values[flag] = single ? "" : arguments[index + 1]
            index += single ? 1 : 2
        }
        self.values = values
    }

    /// - Throws: SampleError: an option has a value that it does not allow.
    public func check(_ options: [Arguments.Option]) throws {
        for option in options {
            guard let value = values[option.flag], !option.allowed.isEmpty, !option.allowed.contains(value) else { continue }
            throw SampleError("\(option.flag) got '\(value)', allowed are \(option.allowed.joined(separator: ", ")); change it")
        }
    }

    /// A whole number from `least`; nil: it is not given.
    public func count(_ flag: String, from least: Int = 1) throws -> Int? {
        guard let text = values[flag] else { return nil }
        guard let count = Int(text), count >= least else {
            throw SampleError("\(flag) got '\(text)', allowed are numbers from \(least); change it")
        }
        return count
    }

    /// A number within a million; nil: it is not given.
    public func number(_ flag: String) throws -> Double? {
        guard let text = values[flag] else { return nil }
        guard let number = Double(text), abs(number) <= OtherSampler.mostGuidance else {
            throw SampleError("\(flag) got '\(text)', allowed are numbers within a million; change it")
        }
        return number
    }
}
