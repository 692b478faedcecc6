import Foundation

public enum ComputeUnitKind: Hashable, Sendable {
    case cpu, gpu, neuralEngine

    /// A device without a GPU.
    public static var availableKinds: Set<ComputeUnitKind> { [.cpu, .neuralEngine] }
}

public struct SpecializationOptions: Hashable, Sendable {
    public static let `default` = SpecializationOptions(allowed: ComputeUnitKind.availableKinds, preferred: nil)
    public static let cpuOnly = SpecializationOptions(allowed: [.cpu], preferred: nil)

    public let allowedComputeUnitKinds: Set<ComputeUnitKind>
    public let preferredComputeUnitKind: ComputeUnitKind?
    public var expectFrequentReshapes = false

    public init(preferredComputeUnitKind: ComputeUnitKind) {
        self.init(allowed: ComputeUnitKind.availableKinds, preferred: preferredComputeUnitKind)
    }

    private init(allowed: Set<ComputeUnitKind>, preferred: ComputeUnitKind?) {
        (allowedComputeUnitKinds, preferredComputeUnitKind) = (allowed, preferred)
    }
}

struct Refusal: Error, LocalizedError {
    let errorDescription: String?
}

public struct AIModel: Sendable {
    private let functions: [String: StandInFunction]

    /// Reads stand-in.json of the folder.
    public init(contentsOf modelURL: URL, options: SpecializationOptions = .default) async throws {
        let data = try Data(contentsOf: modelURL.appendingPathComponent("stand-in.json"))
        let program = try JSONDecoder().decode(StandInProgram.self, from: data)
        StandInLog.shared.add(modelURL.lastPathComponent, options)
        if !program.neuralEngine, options.preferredComputeUnitKind == .neuralEngine {
            throw Refusal(errorDescription: "compilation for the Neural Engine failed")
        }
        functions = program.functions
    }

    public static var deviceArchitectureName: String { "s1n" }
    public var functionNames: [String] { Array(functions.keys) }

    public func functionDescriptor(for functionName: String) -> InferenceFunctionDescriptor? {
        functions[functionName].map { InferenceFunctionDescriptor(name: functionName, $0) }
    }

    public func loadFunction(named functionName: String) throws -> InferenceFunction? {
        guard let function = functions[functionName] else { return nil }
        if !function.loads { throw Refusal(errorDescription: "there is not enough memory") }
        return InferenceFunction(functionName, function)
    }
}
