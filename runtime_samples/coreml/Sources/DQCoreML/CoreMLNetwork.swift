#if canImport(CoreML)
import DQSampler
import Foundation

/// The lowered program of a bundle, executed by Core ML, one function per step group.
public actor CoreMLNetwork: Network {
    private let schedule: StepSchedule
    private let ranges: [Tensor]?
    private let output: String
    private let store: FunctionStore<LoadedFunction>
    private let unit: String
    private var current: LoadedFunction?

    /// Compiles the packages; functions load when they are first needed.
    ///
    /// - Parameter keepFunctions: all stay loaded; otherwise the present one and the next.
    /// - Throws: SampleError: Core ML refuses a package, or ranges.safetensors is damaged.
    public init(_ bundle: ExportedBundle, units: ComputeUnits = .cpuAndNeuralEngine, keepFunctions: Bool = false) async throws {
        let program = try await CompiledProgram(bundle.program)
        let ranges = try bundle.ranges(), output = bundle.output.name
        var times = LoadTimes()
        times.compiled(milliseconds: program.milliseconds)
        let zeros = Self.zeros(bundle)
        store = FunctionStore(keepAll: keepFunctions, times: times) { name in
            let start = ContinuousClock.now
            let function = try LoadedFunction(program, function: name, units: units)
            let milliseconds = (ContinuousClock.now - start).milliseconds
            _ = try function.execute(zeros, output: output)  // the first execution after a load allocates: not in a step's time
            return (function, milliseconds)
        }
        (schedule, self.ranges, self.output) = (bundle.schedule, ranges, output)
        let first = bundle.schedule.method(of: 0)
        unit = units.name + (await Placement.of(program, function: first, units: units)).text
    }

    public func prepare(step: Int) async throws {
        current = try await store.use(schedule.method(of: step), next: schedule.methodAfter(step))
    }

    public func execute(_ call: NetworkCall) throws -> Tensor {
        guard let current else { throw SampleError("step \(call.step) was not prepared; call prepare first") }
        var inputs = call.conditioning
        inputs["sample"] = .float(call.sample)
        inputs["timestep"] = .float(Tensor(shape: [1], values: [call.timestep]))
        if let ranges { inputs["ranges"] = .float(ranges[schedule.groupOfStep[call.step]]) }
        return try current.execute(inputs, output: output)
    }

    public func describe() async -> RuntimeDescription {
        let times = await store.times, system = ProcessInfo.processInfo.operatingSystemVersion
        #if targetEnvironment(simulator)
        let emulated = true
        #else
        let emulated = false
        #endif
        return RuntimeDescription(
            name: "Core ML (Swift)", version: "\(system.majorVersion).\(system.minorVersion).\(system.patchVersion)",
            computeUnit: unit, loadMilliseconds: times.total, compileMilliseconds: times.compile, emulated: emulated)
    }

    /// Inputs of the right shapes, for an execution whose result nobody reads.
    private static func zeros(_ bundle: ExportedBundle) -> [String: AnyTensor] {
        var zeros: [String: AnyTensor] = [:]
        for port in bundle.inputs {
            switch port.kind {
            case .float32: zeros[port.name] = .float(Tensor(zeros: port.shape))
            case .int64:
                let values = [Int64](repeating: 0, count: port.shape.reduce(1, *))
                zeros[port.name] = .integer(IntegerTensor(shape: port.shape, values: values))
            }
        }
        return zeros
    }
}
#endif
