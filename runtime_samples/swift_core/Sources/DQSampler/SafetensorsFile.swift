import Foundation

/// A safetensors file, mapped rather than read: a reference of hundreds of megabytes costs a phone only what is used of it.
public struct SafetensorsFile: Sendable {
    public static let longestHeader: UInt64 = 100_000_000

    public enum Kind: String, Sendable {
        case float32 = "F32"
        case int64 = "I64"
        case int32 = "I32"

        var size: Int { self == .int64 ? 8 : 4 }
    }

    struct Entry: Sendable {
        let kind: Kind
        let shape: [Int]
        let start: Int
    }

    private let name: String
    private let data: Data
    private let entries: [String: Entry]

    /// - Throws: SampleError: missing, shorter than it says, not JSON, or with a tensor that is not where it should be.
    public init(_ file: URL) throws {
        guard let data = try? Data(contentsOf: file, options: .mappedIfSafe) else {
            throw SampleError("cannot read \(file.path); copy the bundle again, whole")
        }
        try self.init(data, name: file.lastPathComponent)
    }

    /// - Parameter name: for errors.
    public init(_ data: Data, name: String) throws {
        func damaged(_ what: String) -> SampleError { SampleError("\(name): \(what); copy the file again") }
        guard data.count >= 8 else { throw damaged("\(data.count) bytes are too few for a safetensors file, at least 8") }
        let length = data.withUnsafeBytes { UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self)) }
        guard length <= Self.longestHeader, length <= UInt64(data.count - 8) else {
            throw damaged("a header of \(length) bytes, at most \(min(Self.longestHeader, UInt64(data.count - 8))) fit")
        }
        let body = 8 + Int(length)
        let header = try JSONReader.read(Array(data[data.startIndex + 8..<data.startIndex + body]), name: name)
        var entries: [String: Entry] = [:]
        for key in try header.asObject("\(name): the header").keys where key != "__metadata__" {
            let place = "\(name): tensor '\(key)'"
            let row = try header.asObject(name).required(key, name).asObject(place)
            entries[key] = try Self.entry(row, place: place, body: body, available: data.count - body)
        }
        (self.name, self.data, self.entries) = (name, data, entries)
    }

    private static func entry(_ row: JSONObject, place: String, body: Int, available: Int) throws -> Entry {
        let type = try row.required("dtype", place).asString("\(place): dtype")
        guard let kind = Kind(rawValue: type) else {
            throw SampleError("\(place) has dtype \(type), allowed are F32, I64 and I32; export the bundle again")
        }
        let shape = try row.required("shape", place).asArray("\(place): shape").map { try $0.asInt("\(place): shape") }
        let offsets = try row.required("data_offsets", place).asArray("\(place): data_offsets")
            .map { try $0.asInt("\(place): data_offsets") }
        guard offsets.count == 2, 0 <= offsets[0], offsets[0] <= offsets[1], offsets[1] <= available else {
            throw SampleError("\(place) lies at \(offsets), it must lie within 0..\(available); copy the file again")
        }
        guard let bytes = byteCount(shape, kind), bytes == offsets[1] - offsets[0] else {
            throw SampleError(
                "\(place): shape \(shape) of \(type) does not take \(offsets[1] - offsets[0]) bytes; copy the file again")
        }
        return Entry(kind: kind, shape: shape, start: body + offsets[0])
    }

    /// nil: negative, or more than an Int holds.
    private static func byteCount(_ shape: [Int], _ kind: Kind) -> Int? {
        var bytes = kind.size
        for side in shape {
            let (product, overflow) = bytes.multipliedReportingOverflow(by: side)
            guard side >= 0, !overflow else { return nil }
            bytes = product
        }
        return bytes
    }

    public var names: [String] { entries.keys.sorted() }

    /// nil: there is no tensor of this name.
    public func shape(of tensor: String) -> [Int]? { entries[tensor]?.shape }

    /// nil: there is no tensor of this name.
    public func kind(of tensor: String) -> Kind? { entries[tensor]?.kind }

    /// Whether no float of a tensor is NaN or infinite; true of integers. Nothing is copied.
    public func isFinite(_ tensor: String) -> Bool {
        guard let entry = entries[tensor], entry.kind == .float32 else { return true }
        let count = entry.shape.reduce(1, *)
        return data.withUnsafeBytes { bytes in
            (0..<count).allSatisfy { index in
                let raw = bytes.loadUnaligned(fromByteOffset: entry.start + index * entry.kind.size, as: UInt32.self)
                return Float(bitPattern: UInt32(littleEndian: raw)).isFinite
            }
        }
    }

    /// The block of a tensor that leading indices choose, whole without any: at [k, s] of (N, S, C, H, W) the (C, H, W) of it.
    /// - Throws: SampleError: no such tensor, or an index outside it.
    public func block(_ tensor: String, at index: [Int] = []) throws -> AnyTensor {
        guard let entry = entries[tensor] else {
            throw SampleError("\(name) has no tensor '\(tensor)', it has \(names.joined(separator: ", ")); export the bundle again")
        }
        guard index.count <= entry.shape.count, zip(index, entry.shape).allSatisfy({ (0..<$1).contains($0) }) else {
            throw SampleError("\(name): '\(tensor)' has shape \(entry.shape), nothing lies at \(index); export the bundle again")
        }
        let rest = Array(entry.shape[index.count...]), count = rest.reduce(1, *)
        let start = entry.start + blockStart(shape: entry.shape, index: index) * entry.kind.size
        switch entry.kind {
        case .float32:
            return .float(Tensor(shape: rest, values: read(UInt32.self, start, count) { Float(bitPattern: $0) }))
        case .int64:
            return .integer(IntegerTensor(shape: rest, values: read(Int64.self, start, count) { $0 }))
        case .int32:
            return .integer(IntegerTensor(shape: rest, values: read(Int32.self, start, count) { Int64($0) }))
        }
    }

    /// As `block`, of a tensor that must hold floats.
    public func floats(_ tensor: String, at index: [Int] = []) throws -> Tensor {
        guard case .float(let floats) = try block(tensor, at: index) else {
            throw SampleError("\(name): '\(tensor)' holds integers, F32 is needed; export the bundle again")
        }
        return floats
    }

    /// Tensors need not be aligned within the file.
    private func read<Raw: FixedWidthInteger, Value>(
        _ type: Raw.Type, _ start: Int, _ count: Int, _ convert: (Raw) -> Value
    ) -> [Value] {
        data.withUnsafeBytes { bytes in
            (0..<count).map { index in
                let offset = start + index * MemoryLayout<Raw>.size
                return convert(Raw(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Raw.self)))
            }
        }
    }
}
