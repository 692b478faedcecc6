/// Floats in row-major order.
public struct Tensor: Sendable, Equatable {
    public let shape: [Int]
    public var values: [Float]

    /// `values` must be as many as `shape` says.
    public init(shape: [Int], values: [Float]) {
        precondition(shape.reduce(1, *) == values.count, "\(values.count) values for shape \(shape)")
        self.shape = shape
        self.values = values
    }

    public init(zeros shape: [Int]) {
        self.init(shape: shape, values: [Float](repeating: 0, count: shape.reduce(1, *)))
    }

    /// The same values under another shape of the same size.
    public func reshaped(_ shape: [Int]) -> Tensor { Tensor(shape: shape, values: values) }

    /// Every value times `factor`.
    public func scaled(by factor: Float) -> Tensor { Tensor(shape: shape, values: values.map { factor * $0 }) }

    /// Adds `factor` times `other`, a product and a sum rounded one after the other.
    public mutating func add(_ factor: Float, times other: Tensor) {
        precondition(shape == other.shape, "shapes \(shape) and \(other.shape)")
        for index in values.indices { values[index] += factor * other.values[index] }
    }

    /// Overwrites the block that leading indices choose: at [k, s] of (N, S, C, H, W), the (C, H, W) values of it.
    public mutating func setBlock(at index: [Int], to block: Tensor) {
        let start = blockStart(shape: shape, index: index)
        values.replaceSubrange(start..<start + block.values.count, with: block.values)
    }

    /// The block that leading indices choose, of the shape that remains.
    public func block(at index: [Int]) -> Tensor {
        let rest = Array(shape[index.count...]), start = blockStart(shape: shape, index: index)
        return Tensor(shape: rest, values: Array(values[start..<start + rest.reduce(1, *)]))
    }
}

/// Integers in row-major order: labels and token numbers of the conditioning.
public struct IntegerTensor: Sendable, Equatable {
    public let shape: [Int]
    public let values: [Int64]

    public init(shape: [Int], values: [Int64]) {
        precondition(shape.reduce(1, *) == values.count, "\(values.count) values for shape \(shape)")
        self.shape = shape
        self.values = values
    }
}

/// What a network takes: floats or integers.
public enum AnyTensor: Sendable, Equatable {
    case float(Tensor)
    case integer(IntegerTensor)

    public var shape: [Int] {
        switch self {
        case .float(let tensor): return tensor.shape
        case .integer(let tensor): return tensor.shape
        }
    }

    /// The same values under another shape of the same size.
    public func reshaped(_ shape: [Int]) -> AnyTensor {
        switch self {
        case .float(let tensor): return .float(tensor.reshaped(shape))
        case .integer(let tensor): return .integer(IntegerTensor(shape: shape, values: tensor.values))
        }
    }
}

/// Where the block at leading indices starts, in elements. Our own indices: outside the shape is a mistake of ours.
func blockStart(shape: [Int], index: [Int]) -> Int {
    var start = 0
    for (axis, position) in index.enumerated() {
        precondition((0..<shape[axis]).contains(position), "index \(index) in shape \(shape)")
        start += position * shape[(axis + 1)...].reduce(1, *)
    }
    return start
}
