#if canImport(CoreML)
import CoreML

/// How many operations of a function Core ML plans to run on which device.
struct Placement {
    private var counts: [String: Int] = [:]

    /// Never fails: a plan that cannot be had counts nothing, the run goes on without it.
    static func of(_ program: CompiledProgram, function: String, units: ComputeUnits) async -> Placement {
        var placement = Placement()
        for model in program.models {
            let configuration = LoadedFunction.configuration(function, units)
            guard let plan = try? await MLComputePlan.load(contentsOf: model, configuration: configuration),
                case .program(let structure) = plan.modelStructure,
                let main = structure.functions[function] ?? structure.functions[LoadedFunction.only]
            else { continue }
            placement.count(main.block, plan)
        }
        return placement
    }

    /// E.g. ", planned operations: CPU 12, Neural Engine 300"; empty if nothing is known.
    var text: String {
        let parts = counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
        return parts.isEmpty ? "" : ", planned operations: " + parts.joined(separator: ", ")
    }

    /// Constants have no device and are not counted.
    private mutating func count(_ block: MLModelStructure.Program.Block, _ plan: MLComputePlan) {
        for operation in block.operations {
            if let usage = plan.deviceUsage(for: operation) { counts[Self.name(usage.preferred), default: 0] += 1 }
            for inner in operation.blocks { count(inner, plan) }
        }
    }

    private static func name(_ device: MLComputeDevice) -> String {
        switch device {
        case .cpu: return "CPU"
        case .gpu: return "GPU"
        case .neuralEngine: return "Neural Engine"
        @unknown default: return "other"
        }
    }
}
#endif
