import DQGenerate
import DQSampler
import Foundation

/// The way from a bundle to a network in Core AI.
public enum CoreAIRuntime {
    /// Why this system cannot run any bundle; nil: it can.
    public static var missing: SampleError? {
        #if canImport(CoreAI)
        if #available(macOS 27, iOS 27, *) { return nil }
        #endif
        return elsewhere
    }

    /// Specialises the program for this device, unless the system has it in its cache; functions load when they are first needed.
    ///
    /// - Parameters:
    ///   - compiled: the bundle's program as `coreai-build` compiled it ahead, a .aimodelc; nil: the bundle's own.
    ///   - keepFunctions: all stay loaded; otherwise the present one and the next.
    ///   - manyRollouts: whether the first function is needed again behind the last step.
    /// - Throws: SampleError: no Core AI here, Core AI refuses the program, or ranges.safetensors is damaged. CancellationError.
    public static func open(
        _ bundle: ExportedBundle, unit: ComputeUnit = .neuralEngine, compiled: URL? = nil, keepFunctions: Bool = false,
        manyRollouts: Bool = true
    ) async throws -> any Network {
        #if canImport(CoreAI)
        if #available(macOS 27, iOS 27, *) {
            let program = try await SpecializedProgram(bundle, unit: unit, compiled: compiled)
            return try FunctionNetwork(
                bundle, runtime: .init(name: "Core AI (Swift)", computeUnit: unit.name, versions: program.versions),
                keepFunctions: keepFunctions, manyRollouts: manyRollouts, compileMilliseconds: program.milliseconds
            ) { try LoadedFunction(program, $0) }
        }
        #endif
        throw elsewhere
    }

    fileprivate static var elsewhere: SampleError {
        #if canImport(CoreAI)
        let system = ProcessInfo.processInfo.operatingSystemVersionString
        return SampleError("Core AI needs macOS 27 or iOS 27, this is \(system); update, or export with --target coreml")
        #else
        return SampleError(
            "Core AI is only on Apple systems, for programs built with Xcode 27, and not in the simulator; run it on a Mac or a "
                + "device, or use dq-replay here")
        #endif
    }
}

/// The programs of a whole pipeline in Core AI.
public struct CoreAIPrograms: Programs {
    private let unit: ComputeUnit
    private let keepFunctions: Bool
    private let compiled: URL?

    /// - Parameter compiled: the network's program as `coreai-build` compiled it ahead; nil: the bundle's own.
    public init(unit: ComputeUnit = .neuralEngine, compiled: URL? = nil, keepFunctions: Bool = false) {
        (self.unit, self.compiled, self.keepFunctions) = (unit, compiled, keepFunctions)
    }

    /// Specialises and loads a part.
    public func open(_ part: PartProgram) async throws -> any Part {
        #if canImport(CoreAI)
        if #available(macOS 27, iOS 27, *) {
            let program = try await SpecializedProgram(part.program, inputs: part.inputs, outputs: part.outputs, unit: unit)
            return try LoadedFunction(program, LoadedFunction.only)
        }
        #endif
        throw CoreAIRuntime.elsewhere
    }

    public func openNetwork(_ bundle: ExportedBundle) async throws -> any Network {
        try await CoreAIRuntime.open(
            bundle, unit: unit, compiled: compiled, keepFunctions: keepFunctions, manyRollouts: false)
    }
}
