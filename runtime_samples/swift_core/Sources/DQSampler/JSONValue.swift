/// A JSON value that knows integers from other numbers and truth values from both, on every platform alike.
public enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    /// A figure of a report: what is not finite is null, since JSON has no other word for it.
    public static func figure(_ value: Double?) -> JSONValue {
        guard let value, value.isFinite else { return .null }
        return .number(value)
    }
}

/// Keys in the order in which they were written.
public struct JSONObject: Sendable, Equatable, ExpressibleByDictionaryLiteral {
    public private(set) var keys: [String] = []
    private var values: [String: JSONValue] = [:]

    public init(dictionaryLiteral elements: (String, JSONValue)...) {
        for (key, value) in elements { self[key] = value }
    }

    public subscript(key: String) -> JSONValue? {
        get { values[key] }
        set {
            if values[key] == nil, newValue != nil { keys.append(key) }
            if newValue == nil { keys.removeAll { $0 == key } }
            values[key] = newValue
        }
    }
}

/// Reads one kind of value, or says where another one stands. `place`: file and key, for the error.
extension JSONValue {
    public func asObject(_ place: String) throws -> JSONObject {
        guard case .object(let object) = self else { throw unexpected("an object", place) }
        return object
    }

    public func asArray(_ place: String) throws -> [JSONValue] {
        guard case .array(let array) = self else { throw unexpected("a list", place) }
        return array
    }

    public func asString(_ place: String) throws -> String {
        guard case .string(let string) = self else { throw unexpected("text", place) }
        return string
    }

    public func asBool(_ place: String) throws -> Bool {
        guard case .bool(let value) = self else { throw unexpected("true or false", place) }
        return value
    }

    public func asInt(_ place: String) throws -> Int {
        guard case .integer(let integer) = self else { throw unexpected("an integer", place) }
        return integer
    }

    public func asDouble(_ place: String) throws -> Double {
        switch self {
        case .integer(let integer): return Double(integer)
        case .number(let number): return number
        default: throw unexpected("a number", place)
        }
    }

    public func asDoubles(_ place: String) throws -> [Double] {
        try asArray(place).map { try $0.asDouble(place) }
    }

    private func unexpected(_ wanted: String, _ place: String) -> SampleError {
        let got: String
        switch self {
        case .null: got = "null"
        case .bool(let value): got = String(value)
        case .integer(let value): got = String(value)
        case .number(let value): got = String(value)
        case .string(let value): got = "'\(value.prefix(40))'"
        case .array: got = "a list"
        case .object: got = "an object"
        }
        return SampleError("\(place) must be \(wanted), got \(got); export the bundle again")
    }
}

extension JSONObject {
    /// The value of a key that must be there.
    public func required(_ key: String, _ place: String) throws -> JSONValue {
        guard let value = self[key] else { throw SampleError("\(place) has no key '\(key)'; export the bundle again") }
        return value
    }
}
