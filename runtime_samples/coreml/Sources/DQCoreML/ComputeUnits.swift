/// What Core ML may use, by the names of the command line.
public enum ComputeUnits: String, Sendable, CaseIterable {
    case all, cpu, cpuAndNeuralEngine, cpuAndGPU

    /// For people and the report.
    public var name: String {
        switch self {
        case .all: return "all units, as Core ML chooses"
        case .cpu: return "CPU"
        case .cpuAndNeuralEngine: return "CPU and Neural Engine"
        case .cpuAndGPU: return "CPU and GPU"
        }
    }
}
