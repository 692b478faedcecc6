/// What Core AI should use, by the names of the command line.
///
/// Only `cpuOnly` forbids anything: a preferred unit leaves to others what it cannot do, and nothing tells at run time which
/// operation ran where.
public enum ComputeUnit: String, Sendable, CaseIterable {
    case `default`, cpuOnly, gpu, neuralEngine

    /// For people and the report.
    public var name: String {
        switch self {
        case .default: return "all units, as Core AI chooses"
        case .cpuOnly: return "CPU only"
        case .gpu: return "GPU preferred"
        case .neuralEngine: return "Neural Engine preferred"
        }
    }
}
