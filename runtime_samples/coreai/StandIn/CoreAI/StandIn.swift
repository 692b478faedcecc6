import Foundation

/// stand-in.json: what a program of the stand-in is.
public struct StandInProgram: Codable, Sendable {
    public var functions: [String: StandInFunction]
    /// false: cannot be specialised with the Neural Engine preferred.
    public var neuralEngine: Bool

    public init(_ functions: [String: StandInFunction], neuralEngine: Bool = true) {
        (self.functions, self.neuralEngine) = (functions, neuralEngine)
    }
}

public struct StandInPort: Codable, Sendable {
    public var name: String
    public var shape: [Int]
    public var scalarType: NDArray.ScalarType
    /// Elements behind every row, of the last dimension, that belong to nobody.
    public var padding = 0
    public var interleave: NDArray.InterleaveLayout?
    public var image: Bool?

    public init(_ name: String, _ shape: [Int], _ scalarType: NDArray.ScalarType) {
        (self.name, self.shape, self.scalarType) = (name, shape, scalarType)
    }

    var value: InferenceValue.Descriptor {
        image == true ? .image(ImageDescriptor(width: shape[shape.count - 1], height: shape[shape.count - 2])) : .ndArray(descriptor)
    }

    var descriptor: NDArrayDescriptor {
        var strides = [Int](repeating: 1, count: shape.count), next = interleave?.factor ?? 1
        for dimension in shape.indices.reversed() where dimension != interleave?.dimension {
            strides[dimension] = next
            next = next * shape[dimension] + (dimension == shape.count - 1 ? padding : 0)
        }
        if let interleave { strides[interleave.dimension] = next }
        return NDArrayDescriptor(shape: shape, scalarType: scalarType, preferredStrides: strides, interleaveLayout: interleave)
    }
}

public struct StandInFunction: Codable, Sendable {
    public var inputs: [StandInPort]
    public var output: StandInPort
    public var factor: Float
    public var loads = true
    public var executes = true

    public init(inputs: [StandInPort], output: StandInPort, factor: Float) {
        (self.inputs, self.output, self.factor) = (inputs, output, factor)
    }
}

extension NDArray {
    /// Where each element is, by the formula of the documentation: another way than the one that is tested.
    private func offset(_ position: Int) -> Int {
        var rest = position, offset = 0
        for dimension in shape.indices.reversed() {
            let index = rest % shape[dimension]
            rest /= shape[dimension]
            if let interleaveLayout, interleaveLayout.dimension == dimension {
                let factor = interleaveLayout.factor
                offset += (index / factor) * strides[dimension] + index % factor
            } else {
                offset += index * strides[dimension]
            }
        }
        return offset
    }

    var floats: [Float] {
        let positions = 0..<shape.reduce(1, *)
        switch scalarType {
        case .float16: return view(as: Float16.self).withUnsafePointer { data, _, _ in positions.map { Float(data[offset($0)]) } }
        case .float32: return view(as: Float.self).withUnsafePointer { data, _, _ in positions.map { data[offset($0)] } }
        case .int32: return view(as: Int32.self).withUnsafePointer { data, _, _ in positions.map { Float(data[offset($0)]) } }
        case .int64: return view(as: Int64.self).withUnsafePointer { data, _, _ in positions.map { Float(data[offset($0)]) } }
        case .bfloat16: return positions.map { _ in .nan }
        }
    }

    init(_ values: [Float], _ port: StandInPort) throws {
        self.init(descriptor: port.descriptor)
        let offsets = values.indices.map(offset)
        switch scalarType {
        case .float16:
            mutableView(as: Float16.self).withUnsafeMutablePointer { data, _, _ in
                for (value, offset) in zip(values, offsets) { data[offset] = Float16(value) }
            }
        case .float32:
            mutableView(as: Float.self).withUnsafeMutablePointer { data, _, _ in
                for (value, offset) in zip(values, offsets) { data[offset] = value }
            }
        case .bfloat16, .int32, .int64: break
        }
    }
}

/// What was loaded, for tests.
public final class StandInLog: @unchecked Sendable {
    public static let shared = StandInLog()
    private let lock = NSLock()
    private var models: [(name: String, options: SpecializationOptions)] = []
    private var names: [String] = []
    private var living = 0
    private var highest = 0

    func add(_ model: String, _ options: SpecializationOptions) { lock.withLock { models.append((model, options)) } }

    func loaded(_ function: String) {
        lock.withLock {
            names.append(function)
            living += 1
            highest = max(highest, living)
        }
    }

    func gone() { lock.withLock { living -= 1 } }

    public var specialized: [(name: String, options: SpecializationOptions)] { lock.withLock { models } }
    public var loaded: [String] { lock.withLock { names } }
    /// How many functions lived at a time.
    public var mostFunctions: Int { lock.withLock { highest } }
    public func clear() { lock.withLock { (models, names, highest) = ([], [], living) } }
}

/// Tells the log how long a function lives.
final class Presence: Sendable {
    init(_ name: String) { StandInLog.shared.loaded(name) }
    deinit { StandInLog.shared.gone() }
}
