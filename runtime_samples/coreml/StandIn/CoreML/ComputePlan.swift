import Foundation

public final class MLCPUComputeDevice: Sendable {}
public final class MLGPUComputeDevice: Sendable {}
public final class MLNeuralEngineComputeDevice: Sendable {}

public enum MLComputeDevice: Sendable {
    case cpu(MLCPUComputeDevice)
    case gpu(MLGPUComputeDevice)
    case neuralEngine(MLNeuralEngineComputeDevice)
}

public enum MLModelStructure: Sendable {
    public struct Program: Sendable {
        public struct Function: Sendable { public let block: Block }

        public struct Block: Sendable { public let operations: [Operation] }

        public struct Operation: Sendable {
            public let operatorName: String
            public let blocks: [Block]
        }

        public let functions: [String: Function]
    }

    case program(Program)
    case unsupported
}

public class MLComputePlan {
    public struct DeviceUsage: Sendable { public let preferred: MLComputeDevice }

    public let modelStructure: MLModelStructure

    init(_ structure: MLModelStructure) { modelStructure = structure }

    /// One convolution for the Neural Engine, one constant, one condition for the CPU with an addition for the GPU in it.
    public static func load(contentsOf url: URL, configuration: MLModelConfiguration) async throws -> MLComputePlan {
        typealias Operation = MLModelStructure.Program.Operation
        let inner = MLModelStructure.Program.Block(operations: [Operation(operatorName: "add", blocks: [])])
        let block = MLModelStructure.Program.Block(operations: [
            Operation(operatorName: "const", blocks: []), Operation(operatorName: "conv", blocks: []),
            Operation(operatorName: "cond", blocks: [inner]),
        ])
        return MLComputePlan(.program(.init(functions: [configuration.functionName ?? "main": .init(block: block)])))
    }

    public func deviceUsage(for operation: MLModelStructure.Program.Operation) -> DeviceUsage? {
        switch operation.operatorName {
        case "conv": return DeviceUsage(preferred: .neuralEngine(MLNeuralEngineComputeDevice()))
        case "add": return DeviceUsage(preferred: .gpu(MLGPUComputeDevice()))
        case "cond": return DeviceUsage(preferred: .cpu(MLCPUComputeDevice()))
        default: return nil
        }
    }
}

@available(*, unavailable)
extension MLComputePlan: Sendable {}
