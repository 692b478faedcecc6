import DQCoreAI
import DQCoreML
import DQGenerate
import DQSampler
import Foundation

/// What executes a bundle on this device: its target says.
public enum DeviceRuntime: String, Sendable, CaseIterable {
    case coreml, coreai

    /// What a runtime may or should use.
    public struct Unit: Sendable, Hashable {
        /// As on the command line.
        public let id: String
        /// For people and the report.
        public let name: String
    }

    /// - Parameter folder: of a bundle. Only its target is looked at here, all else when it runs.
    /// - Throws: SampleError: there is no bundle, or one for something else.
    public init(of folder: URL) throws {
        let target = try ExportedBundle.target(of: folder)
        guard let runtime = Self(rawValue: target) else {
            let allowed = Self.allCases.map(\.rawValue).joined(separator: " and ")
            throw SampleError(
                "\(folder.lastPathComponent) is for target '\(target)', this app runs \(allowed); export with --target coreml")
        }
        self = runtime
    }

    public var name: String {
        switch self {
        case .coreml: return "Core ML"
        case .coreai: return "Core AI"
        }
    }

    /// The first one is what to begin with.
    public var units: [Unit] {
        let units: [Unit], first: String
        switch self {
        case .coreml:
            units = ComputeUnits.allCases.map { Unit(id: $0.rawValue, name: $0.name) }
            first = ComputeUnits.cpuAndNeuralEngine.rawValue
        case .coreai:
            units = ComputeUnit.allCases.map { Unit(id: $0.rawValue, name: $0.name) }
            first = ComputeUnit.neuralEngine.rawValue
        }
        return units.filter { $0.id == first } + units.filter { $0.id != first }
    }

    /// Why this device cannot run such bundles; nil: it can.
    public var missing: SampleError? {
        switch self {
        case .coreml: return CoreMLRuntime.missing
        case .coreai: return CoreAIRuntime.missing
        }
    }

    /// - Parameters: unit: one of `units`. keepFunctions: all stay loaded; otherwise the present one and the next.
    /// - Throws: SampleError: the runtime is not here, or refuses. CancellationError.
    public func open(_ bundle: ExportedBundle, unit: Unit, keepFunctions: Bool) async throws -> any Network {
        switch self {
        case .coreml:
            let units = try Self.known(ComputeUnits(rawValue: unit.id), unit)
            return try await CoreMLRuntime.open(bundle, units: units, keepFunctions: keepFunctions)
        case .coreai:
            let unit = try Self.known(ComputeUnit(rawValue: unit.id), unit)
            return try await CoreAIRuntime.open(bundle, unit: unit, keepFunctions: keepFunctions)
        }
    }

    /// The programs of a whole pipeline.
    /// - Throws: SampleError: the unit is of the other runtime.
    public func programs(unit: Unit, keepFunctions: Bool) throws -> any Programs {
        switch self {
        case .coreml: return CoreMLPrograms(units: try Self.known(ComputeUnits(rawValue: unit.id), unit), keepFunctions: keepFunctions)
        case .coreai: return CoreAIPrograms(unit: try Self.known(ComputeUnit(rawValue: unit.id), unit), keepFunctions: keepFunctions)
        }
    }

    private static func known<Choice>(_ choice: Choice?, _ unit: Unit) throws -> Choice {
        guard let choice else { throw SampleError("'\(unit.name)' is not for this bundle; choose other compute units") }
        return choice
    }
}
