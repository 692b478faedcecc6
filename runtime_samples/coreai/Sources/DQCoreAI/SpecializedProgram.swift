#if canImport(CoreAI)
import CoreAI
import DQSampler
import Foundation

/// The program of a bundle, specialised for this device. Light: weights come with the functions loaded from it.
@available(macOS 27, iOS 27, *)
struct SpecializedProgram: Sendable {
    let model: AIModel
    let inputs: [ExportedBundle.Port]
    /// The first one is a network's.
    let outputs: [String]
    let unit: ComputeUnit
    /// The file that was given, for errors.
    let name: String
    /// Of specialising; short when the system had done it before.
    let milliseconds: Double
    /// For the report: the architecture for which programs are compiled ahead, and the file if it was one of those.
    let versions: [String: String]

    /// - Parameter compiled: a .aimodelc instead of the bundle's program; its SHA-256 stands in no bundle.
    /// - Throws: SampleError: a path or a unit that is not there, or Core AI refuses. CancellationError.
    init(_ bundle: ExportedBundle, unit: ComputeUnit, compiled: URL?) async throws {
        let file = try compiled.map(Self.checked) ?? bundle.program
        try await self.init(
            file, inputs: bundle.inputs, outputs: [bundle.output.name], unit: unit, isCompiledAhead: compiled != nil)
    }

    /// - Throws: SampleError: Core AI refuses. CancellationError.
    init(
        _ file: URL, inputs: [ExportedBundle.Port], outputs: [String], unit: ComputeUnit, isCompiledAhead: Bool = false
    ) async throws {
        let options = try unit.options()
        (self.inputs, self.outputs, self.unit, name) = (inputs, outputs, unit, file.lastPathComponent)
        let architecture = AIModel.deviceArchitectureName, start = ContinuousClock.now
        do {
            model = try await AIModel(contentsOf: file, options: options)
        } catch {
            let ahead = !isCompiledAhead ? "" : "; a .aimodelc fits one architecture, this device is '\(architecture)'"
            throw try refusal("cannot load \(file.lastPathComponent) for: \(unit.name)", error, unit.advice + ahead)
        }
        milliseconds = (ContinuousClock.now - start).milliseconds
        var versions = ["core_ai_architecture": architecture]
        if isCompiledAhead { versions["compiled_ahead"] = file.lastPathComponent }
        self.versions = versions
    }

    /// A path that has no chance would only be refused after minutes.
    private static func checked(_ file: URL) throws -> URL {
        guard file.pathExtension == "aimodelc" else {
            throw SampleError(
                "--program got \(file.lastPathComponent), allowed is a .aimodelc that coreai-build made of the bundle's program; "
                    + "leave it out to run the bundle's own")
        }
        guard FileManager.default.fileExists(atPath: file.path) else {
            throw SampleError("--program: there is no \(file.path); give the .aimodelc that coreai-build wrote")
        }
        return file
    }
}

@available(macOS 27, iOS 27, *)
extension ComputeUnit {
    /// - Throws: SampleError: this device has no such unit. Core AI would use others without a word.
    func options() throws -> SpecializationOptions {
        let kind: ComputeUnitKind
        switch self {
        case .default: return .default
        case .cpuOnly: return .cpuOnly
        case .gpu: kind = .gpu
        case .neuralEngine: kind = .neuralEngine
        }
        guard ComputeUnitKind.availableKinds.contains(kind) else {
            throw SampleError("--compute-unit \(rawValue): this device has no such unit; try --compute-unit default")
        }
        return SpecializationOptions(preferredComputeUnitKind: kind)
    }

    /// What may help when Core AI refuses a program for this unit.
    var advice: String {
        switch self {
        case .default: return "try --compute-unit cpuOnly, or export again"
        case .cpuOnly: return "export again"
        case .gpu, .neuralEngine: return "nothing else was tried; --compute-unit default lets Core AI choose, cpuOnly is the CPU alone"
        }
    }
}

/// One line of what Core AI refuses.
/// - Throws: CancellationError: it refused nothing, somebody cancelled.
func refusal(_ what: String, _ error: any Error, _ advice: String) throws -> SampleError {
    if error is CancellationError { throw error }
    let reason = (error as? any LocalizedError)?.errorDescription ?? "\(error)"
    return SampleError("Core AI \(what): \(reason); \(advice)")
}
#endif
