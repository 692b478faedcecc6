import Foundation

/// Reads JSON as RFC 8259 has it and nothing more: no NaN, no comments, nothing behind the value, no key twice.
///
/// Foundation's parser is not used: it makes no difference between 1, 1.0 and true on some platforms, and what it does
/// with a file of a hundred thousand brackets is not written down.
public struct JSONReader {
    /// Deeper files are refused; the reader calls itself once per level and the stack is finite.
    public static let deepest = 64

    private let bytes: [UInt8]
    private let name: String
    private var at = 0

    /// - Parameter name: of the file, for errors.
    /// - Throws: SampleError with the place of the first byte that is wrong.
    public static func read(_ bytes: [UInt8], name: String) throws -> JSONValue {
        var reader = JSONReader(bytes: bytes, name: name)
        let value = try reader.value(depth: 0)
        reader.skipSpace()
        guard reader.at == bytes.count else { throw reader.wrong("something stands behind the value") }
        return value
    }

    private init(bytes: [UInt8], name: String) {
        self.bytes = bytes
        self.name = name
    }

    private func wrong(_ what: String) -> SampleError {
        SampleError("\(name) is no valid JSON (\(what), byte \(at)); copy the file again")
    }

    private var next: UInt8? { at < bytes.count ? bytes[at] : nil }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { at += 1 }
    }

    private mutating func take(_ wanted: Character) -> Bool {
        guard next == wanted.asciiValue else { return false }
        at += 1
        return true
    }

    private mutating func value(depth: Int) throws -> JSONValue {
        guard depth < Self.deepest else { throw wrong("nested deeper than \(Self.deepest) levels") }
        skipSpace()
        switch next.map({ Character(UnicodeScalar($0)) }) {
        case "{": return try object(depth: depth)
        case "[": return try array(depth: depth)
        case "\"": return .string(try string())
        case "t": return try word("true", .bool(true))
        case "f": return try word("false", .bool(false))
        case "n": return try word("null", .null)
        case nil: throw wrong("it ends where a value should be")
        default: return try number()
        }
    }

    private mutating func word(_ text: String, _ value: JSONValue) throws -> JSONValue {
        guard bytes[at...].starts(with: text.utf8) else { throw wrong("unknown word") }
        at += text.utf8.count
        return value
    }

    private mutating func array(depth: Int) throws -> JSONValue {
        at += 1
        var elements: [JSONValue] = []
        skipSpace()
        if take("]") { return .array(elements) }
        while true {
            elements.append(try value(depth: depth + 1))
            skipSpace()
            if take("]") { return .array(elements) }
            guard take(",") else { throw wrong("a list lacks , or ]") }
        }
    }

    private mutating func object(depth: Int) throws -> JSONValue {
        at += 1
        var object = JSONObject()
        skipSpace()
        if take("}") { return .object(object) }
        while true {
            skipSpace()
            guard next == UInt8(ascii: "\"") else { throw wrong("an object lacks a key") }
            let key = try string()
            guard object[key] == nil else { throw wrong("the key '\(key.prefix(40))' stands there twice") }
            skipSpace()
            guard take(":") else { throw wrong("a key lacks :") }
            object[key] = try value(depth: depth + 1)
            skipSpace()
            if take("}") { return .object(object) }
            guard take(",") else { throw wrong("an object lacks , or }") }
        }
    }

    private mutating func digits() -> Int {
        let start = at
        while let byte = next, (0x30...0x39).contains(byte) { at += 1 }
        return at - start
    }

    private mutating func number() throws -> JSONValue {
        let start = at
        var whole = true
        _ = take("-")
        let zero = next == UInt8(ascii: "0")
        let count = digits()
        guard count == 1 || (count > 1 && !zero) else { throw wrong("bad number") }
        if take(".") {
            whole = false
            guard digits() > 0 else { throw wrong("bad number") }
        }
        if take("e") || take("E") {
            whole = false
            if !take("+") { _ = take("-") }
            guard digits() > 0 else { throw wrong("bad number") }
        }
        let text = String(decoding: bytes[start..<at], as: UTF8.self)
        if whole, let integer = Int(text) { return .integer(integer) }
        guard let number = Double(text), number.isFinite else { throw wrong("a number that no double holds") }
        return .number(number)
    }

    private mutating func string() throws -> String {
        at += 1
        var text: [UInt8] = []
        while let byte = next {
            at += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let string = String(bytes: text, encoding: .utf8) else { throw wrong("text that is not UTF-8") }
                return string
            case UInt8(ascii: "\\"): text.append(contentsOf: try escape())
            case 0..<0x20: throw wrong("a control character in text")
            default: text.append(byte)
            }
        }
        throw wrong("text without end")
    }

    private mutating func escape() throws -> [UInt8] {
        guard let byte = next else { throw wrong("text without end") }
        at += 1
        switch Character(UnicodeScalar(byte)) {
        case "\"", "\\", "/": return [byte]
        case "b": return [0x08]
        case "f": return [0x0C]
        case "n": return [0x0A]
        case "r": return [0x0D]
        case "t": return [0x09]
        case "u": return try unicode()
        default: throw wrong("bad escape")
        }
    }

    /// One code point as UTF-8; beyond the first plane it takes two escapes, a surrogate each.
    private mutating func unicode() throws -> [UInt8] {
        var code = try hexadecimal()
        if (0xD800..<0xDC00).contains(code) {
            guard take("\\"), take("u") else { throw wrong("half of a surrogate pair") }
            let low = try hexadecimal()
            guard (0xDC00..<0xE000).contains(low) else { throw wrong("half of a surrogate pair") }
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        }
        guard let scalar = UnicodeScalar(code) else { throw wrong("half of a surrogate pair") }
        return Array(String(Character(scalar)).utf8)
    }

    private mutating func hexadecimal() throws -> UInt32 {
        guard bytes.count - at >= 4, bytes[at..<at + 4].allSatisfy({ Character(UnicodeScalar($0)).isHexDigit }),
            let code = UInt32(String(decoding: bytes[at..<at + 4], as: UTF8.self), radix: 16)
        else { throw wrong("bad escape") }
        at += 4
        return code
    }
}
