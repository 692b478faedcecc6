import DQGenerate
import DQSampler

/// The way from a bundle to a network in Core ML.
public enum CoreMLRuntime {
    /// Why this system cannot run any bundle; nil: it can.
    public static var missing: SampleError? {
        #if canImport(CoreML)
        return nil
        #else
        return elsewhere
        #endif
    }

    /// Compiles the packages; functions load when they are first needed.
    ///
    /// - Parameters:
    ///   - keepFunctions: all stay loaded; otherwise the present one and the next.
    ///   - manyRollouts: whether the first function is needed again behind the last step.
    /// - Throws: SampleError: no Core ML here, Core ML refuses a package, or ranges.safetensors is damaged.
    public static func open(
        _ bundle: ExportedBundle, units: ComputeUnits = .cpuAndNeuralEngine, keepFunctions: Bool = false,
        manyRollouts: Bool = true
    ) async throws -> any Network {
        #if canImport(CoreML)
        let program = try await CompiledProgram(bundle.program), outputs = [bundle.output.name]
        let placement = await Placement.of(program, function: bundle.schedule.method(of: 0), units: units)
        return try FunctionNetwork(
            bundle, runtime: .init(name: "Core ML (Swift)", computeUnit: units.name + placement.text), keepFunctions: keepFunctions,
            manyRollouts: manyRollouts, compileMilliseconds: program.milliseconds
        ) { try LoadedFunction(program, function: $0, units: units, outputs: outputs) }
        #else
        throw elsewhere
        #endif
    }

    #if !canImport(CoreML)
    fileprivate static let elsewhere = SampleError(
        "Core ML is only on Apple systems, this is another; run it on a Mac, or use dq-replay here")
    #endif
}

/// The programs of a whole pipeline in Core ML.
public struct CoreMLPrograms: Programs {
    private let units: ComputeUnits
    private let keepFunctions: Bool

    public init(units: ComputeUnits = .cpuAndNeuralEngine, keepFunctions: Bool = false) {
        (self.units, self.keepFunctions) = (units, keepFunctions)
    }

    /// Compiles and loads a part.
    public func open(_ part: PartProgram) async throws -> any Part {
        #if canImport(CoreML)
        let program = try await CompiledProgram(part.program)
        return try LoadedFunction(program, function: LoadedFunction.only, units: units, outputs: part.outputs)
        #else
        throw CoreMLRuntime.elsewhere
        #endif
    }

    public func openNetwork(_ bundle: ExportedBundle) async throws -> any Network {
        try await CoreMLRuntime.open(bundle, units: units, keepFunctions: keepFunctions, manyRollouts: false)
    }
}
