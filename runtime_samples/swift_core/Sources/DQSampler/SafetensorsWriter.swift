import Foundation

/// The bytes of a safetensors file with float32 tensors, piece by piece, so that no second copy of them all is made.
public struct SafetensorsWriter: Sendable {
    private let tensors: [(name: String, tensor: Tensor)]

    public init(_ tensors: [(name: String, tensor: Tensor)]) { self.tensors = tensors }

    /// Calls `put` with one piece after another.
    public func write(_ put: (Data) throws -> Void) throws {
        var header = JSONObject()
        var offset = 0
        for (name, tensor) in tensors {
            let end = offset + 4 * tensor.values.count
            header[name] = .object([
                "dtype": .string("F32"), "shape": .array(tensor.shape.map(JSONValue.integer)),
                "data_offsets": .array([.integer(offset), .integer(end)]),
            ])
            offset = end
        }
        var text = Array(JSONValue.object(header).text.utf8)
        text.append(contentsOf: repeatElement(UInt8(ascii: " "), count: (8 - text.count % 8) % 8))  // tensors start aligned
        try put(withUnsafeBytes(of: UInt64(text.count).littleEndian) { Data($0) } + text)
        for (_, tensor) in tensors {
            for start in stride(from: 0, to: tensor.values.count, by: 1 << 18) {
                let piece = tensor.values[start..<min(start + (1 << 18), tensor.values.count)].map(\.bitPattern.littleEndian)
                try put(piece.withUnsafeBytes { Data($0) })
            }
        }
    }
}
