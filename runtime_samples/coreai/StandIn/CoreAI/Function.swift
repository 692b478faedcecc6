public struct ImageDescriptor: Equatable, Sendable {
    public let width: Int
    public let height: Int
}

public struct InferenceValue: ~Copyable, Sendable {
    public enum Descriptor: Sendable {
        case image(ImageDescriptor)
        case ndArray(NDArrayDescriptor)
    }

    private let array: NDArray

    init(_ array: NDArray) { self.array = array }

    public var ndArray: NDArray? { consuming get { array } }
}

public struct InferenceFunctionDescriptor: Sendable {
    public let name: String
    private let function: StandInFunction

    init(name: String, _ function: StandInFunction) { (self.name, self.function) = (name, function) }

    public var inputNames: [String] { function.inputs.map(\.name) }
    public var outputNames: [String] { [function.output.name] }

    public func inputDescriptor(of inputName: String) -> InferenceValue.Descriptor? {
        function.inputs.first { $0.name == inputName }.map { $0.value }
    }

    public func outputDescriptor(of outputName: String) -> InferenceValue.Descriptor? {
        outputName == function.output.name ? function.output.value : nil
    }
}

public struct InferenceFunction: Sendable {
    public struct Outputs: ~Copyable {
        private var values: [String: NDArray]

        init(_ values: [String: NDArray]) { self.values = values }

        public mutating func remove(_ outputName: String) -> InferenceValue? {
            guard let array = values.removeValue(forKey: outputName) else { return nil }
            return InferenceValue(array)
        }
    }

    public struct MutableViews: ~Copyable {
        public init() {}
    }

    public let descriptor: InferenceFunctionDescriptor
    private let function: StandInFunction
    /// In the log while a copy of this function lives.
    private let presence: Presence

    init(_ name: String, _ function: StandInFunction) {
        descriptor = InferenceFunctionDescriptor(name: name, function)
        (self.function, presence) = (function, Presence(name))
    }

    /// Factor times the first input plus the sum of all others, computed in float32; where the output has more numbers, they begin again.
    public func run(
        inputs: [String: NDArray], states: consuming MutableViews = MutableViews(),
        outputViews: consuming MutableViews = MutableViews()
    ) async throws -> Outputs {
        var values: [[Float]] = []
        for port in function.inputs {
            guard let array = inputs[port.name] else { throw Refusal(errorDescription: "no input '\(port.name)'") }
            guard array.scalarType == port.scalarType, array.shape == port.shape else {
                throw Refusal(errorDescription: "'\(port.name)' must be \(port.scalarType) of shape \(port.shape)")
            }
            values.append(array.floats)
        }
        guard inputs.count == values.count else { throw Refusal(errorDescription: "an input too many") }
        if !function.executes { throw Refusal(errorDescription: "the device was busy") }
        let rest = values.dropFirst().flatMap { $0 }.reduce(0, +)
        let count = function.output.shape.reduce(1, *)
        let answer = (0..<count).map { function.factor * values[0][$0 % values[0].count] + rest }
        return Outputs([function.output.name: try NDArray(answer, function.output)])
    }
}
