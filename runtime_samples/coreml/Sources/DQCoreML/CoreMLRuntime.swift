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
    /// - Parameter keepFunctions: all stay loaded; otherwise the present one and the next.
    /// - Throws: SampleError: no Core ML here, Core ML refuses a package, or ranges.safetensors is damaged.
    public static func open(
        _ bundle: ExportedBundle, units: ComputeUnits = .cpuAndNeuralEngine, keepFunctions: Bool = false
    ) async throws -> any Network {
        #if canImport(CoreML)
        let program = try await CompiledProgram(bundle.program), output = bundle.output.name
        let placement = await Placement.of(program, function: bundle.schedule.method(of: 0), units: units)
        return try FunctionNetwork(
            bundle, runtime: .init(name: "Core ML (Swift)", computeUnit: units.name + placement.text), keepFunctions: keepFunctions,
            compileMilliseconds: program.milliseconds
        ) { try LoadedFunction(program, function: $0, units: units, output: output) }
        #else
        throw elsewhere
        #endif
    }

    #if !canImport(CoreML)
    private static let elsewhere = SampleError(
        "Core ML is only on Apple systems, this is another; run it on a Mac, or use dq-replay here")
    #endif
}
