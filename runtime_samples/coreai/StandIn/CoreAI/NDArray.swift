/// In the standard library since Swift 6.2.
public struct Span<Element> {
    private let elements: [Element]

    init(_ elements: [Element]) { self.elements = elements }

    public var count: Int { elements.count }
    public subscript(index: Int) -> Element { elements[index] }
}

public struct NDArrayDescriptor: Equatable, Sendable {
    public let shape: [Int]
    public let scalarType: NDArray.ScalarType
    public let preferredStrides: [Int]
    public let interleaveLayout: NDArray.InterleaveLayout?
}

/// Not the storage of the SDK: here it is shared by copies until one of them is written to.
public struct NDArray: @unchecked Sendable {
    public enum ScalarType: String, CaseIterable, Codable, Sendable {
        case float16, float32, bfloat16, int32, int64

        var bytes: Int {
            switch self {
            case .float16, .bfloat16: return 2
            case .float32, .int32: return 4
            case .int64: return 8
            }
        }
    }

    public struct InterleaveLayout: Equatable, Codable, Sendable {
        public let dimension: Int
        public let factor: Int

        public init(dimension: Int, factor: Int) { (self.dimension, self.factor) = (dimension, factor) }
    }

    final class Storage {
        let bytes: UnsafeMutableRawBufferPointer

        init(count: Int) {
            bytes = .allocate(byteCount: count, alignment: 64)
            bytes.initializeMemory(as: UInt8.self, repeating: 0xFF)  // NaN for floats: who reads padding shall notice
        }

        deinit { bytes.deallocate() }
    }

    public let shape: [Int]
    public let scalarType: ScalarType
    public let strides: [Int]
    public let interleaveLayout: InterleaveLayout?
    private var storage: Storage

    public init(descriptor: consuming NDArrayDescriptor) {
        (shape, scalarType, strides) = (descriptor.shape, descriptor.scalarType, descriptor.preferredStrides)
        interleaveLayout = descriptor.interleaveLayout
        let interleave = descriptor.interleaveLayout
        var last = 0
        for (dimension, length) in descriptor.shape.enumerated() {
            let stride = descriptor.preferredStrides[dimension]
            guard let interleave, interleave.dimension == dimension else {
                last += (length - 1) * stride
                continue
            }
            last += (length - 1) / interleave.factor * stride + interleave.factor - 1
        }
        storage = Storage(count: (last + 1) * descriptor.scalarType.bytes)
    }

    public func view<T: BitwiseCopyable>(as type: T.Type = T.self) -> View<T> { View(self) }

    public mutating func mutableView<T: BitwiseCopyable>(as type: T.Type = T.self) -> MutableView<T> {
        if !isKnownUniquelyReferenced(&storage) {
            let copy = Storage(count: storage.bytes.count)
            copy.bytes.copyMemory(from: UnsafeRawBufferPointer(storage.bytes))
            storage = copy
        }
        return MutableView(self)
    }

    fileprivate func pointer<T>(_ type: T.Type) -> UnsafeMutablePointer<T> {
        precondition(Self.matches(type, scalarType), "a view of \(scalarType) as \(type)")
        return storage.bytes.bindMemory(to: type).baseAddress!
    }

    private static func matches<T>(_ type: T.Type, _ scalar: ScalarType) -> Bool {
        switch scalar {
        case .float16: return type == Float16.self
        case .float32: return type == Float.self
        case .int32: return type == Int32.self
        case .int64: return type == Int64.self
        case .bfloat16: return false
        }
    }

    public struct View<Element: BitwiseCopyable>: ~Copyable {
        private let array: NDArray

        fileprivate init(_ array: NDArray) { self.array = array }

        public func withUnsafePointer<R, E: Error>(
            _ body: (UnsafePointer<Element>, Span<Int>, Span<Int>) throws(E) -> R
        ) throws(E) -> R {
            try body(UnsafePointer(array.pointer(Element.self)), Span(array.shape), Span(array.strides))
        }
    }

    public struct MutableView<Element: BitwiseCopyable>: ~Copyable {
        private let array: NDArray

        fileprivate init(_ array: NDArray) { self.array = array }

        public func withUnsafeMutablePointer<R, E: Error>(
            _ body: (UnsafeMutablePointer<Element>, Span<Int>, Span<Int>) throws(E) -> R
        ) throws(E) -> R {
            try body(array.pointer(Element.self), Span(array.shape), Span(array.strides))
        }
    }
}
