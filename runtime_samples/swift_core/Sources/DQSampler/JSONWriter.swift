/// Writes JSON, one element to a line, as the host does.
extension JSONValue {
    /// Doubles in the shortest form that reads back to the same bits. What is not finite becomes null.
    public var text: String {
        var out = ""
        write(into: &out, indent: 0)
        return out + "\n"
    }

    private func write(into out: inout String, indent: Int) {
        switch self {
        case .null: out += "null"
        case .bool(let value): out += value ? "true" : "false"
        case .integer(let value): out += String(value)
        case .number(let value): out += value.isFinite ? String(value) : "null"
        case .string(let value): out += Self.quoted(value)
        case .array(let elements):
            Self.writeList(of: elements.count, "[", "]", into: &out, indent: indent) { index, out in
                elements[index].write(into: &out, indent: indent + 1)
            }
        case .object(let object):
            Self.writeList(of: object.keys.count, "{", "}", into: &out, indent: indent) { index, out in
                out += Self.quoted(object.keys[index]) + ": "
                (object[object.keys[index]] ?? .null).write(into: &out, indent: indent + 1)
            }
        }
    }

    private static func writeList(
        of count: Int, _ open: String, _ close: String, into out: inout String, indent: Int,
        element: (Int, inout String) -> Void
    ) {
        out += open
        for index in 0..<count {
            out += (index == 0 ? "\n" : ",\n") + String(repeating: " ", count: indent + 1)
            element(index, &out)
        }
        if count > 0 { out += "\n" + String(repeating: " ", count: indent) }
        out += close
    }

    private static func quoted(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }
}
