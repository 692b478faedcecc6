import Foundation

/// One function of a lowered program, loaded by a runtime.
public protocol ProgramFunction: Sendable {
    /// - Parameter inputs: all of the bundle's, by name, batch 1.
    /// - Returns: the bundle's output, float32.
    /// - Throws: SampleError: the runtime refuses.
    func execute(_ inputs: [String: AnyTensor]) async throws -> Tensor
}

/// The lowered program of a bundle, one function per step group: the present one in memory, the next one loading.
public actor FunctionNetwork<Function: ProgramFunction>: Network {
    /// What the report says of whoever executes.
    public struct Runtime: Sendable {
        let name: String
        let computeUnit: String
        let versions: [String: String]

        public init(name: String, computeUnit: String, versions: [String: String] = [:]) {
            (self.name, self.computeUnit, self.versions) = (name, computeUnit, versions)
        }
    }

    private let schedule: StepSchedule
    private let manyRollouts: Bool
    private let ranges: [Tensor]?
    private let store: FunctionStore<Function>
    private let runtime: Runtime
    private var current: Function?

    /// Loads nothing yet.
    ///
    /// - Parameters:
    ///   - keepFunctions: all stay loaded; otherwise the present one and the next.
    ///   - manyRollouts: whether the first function is needed again behind the last step.
    ///   - compileMilliseconds: what was compiled before anything loads.
    ///   - load: loads a function by name; its time is the load time.
    /// - Throws: SampleError: ranges.safetensors is damaged.
    public init(
        _ bundle: ExportedBundle, runtime: Runtime, keepFunctions: Bool, manyRollouts: Bool = true,
        compileMilliseconds: Double,
        load: @escaping @Sendable (String) async throws -> Function
    ) throws {
        let ranges = try bundle.ranges()
        let first = Self.unread(bundle, ranges)
        var times = LoadTimes()
        times.compiled(milliseconds: compileMilliseconds)
        store = FunctionStore(keepAll: keepFunctions, times: times) { name in
            let start = ContinuousClock.now
            let function = try await load(name)
            let milliseconds = (ContinuousClock.now - start).milliseconds
            _ = try await function.execute(first)  // the first execution after a load allocates: not in a step's time
            return (function, milliseconds)
        }
        (schedule, self.ranges, self.runtime, self.manyRollouts) = (bundle.schedule, ranges, runtime, manyRollouts)
    }

    public func prepare(step: Int) async throws {
        current = nil  // or three functions are in memory until the store has answered
        current = try await store.use(schedule.method(of: step), next: schedule.methodAfter(step, again: manyRollouts))
    }

    public func execute(_ call: NetworkCall) async throws -> Tensor {
        guard let current else { throw SampleError("step \(call.step) was not prepared; call prepare first") }
        var inputs = call.conditioning
        inputs["sample"] = .float(call.sample)
        if let vectors = call.stepVectors {
            inputs["step_vectors"] = .float(vectors)
        } else {
            inputs["timestep"] = .float(Tensor(shape: [1], values: [call.timestep]))
        }
        if let ranges { inputs["ranges"] = .float(ranges[schedule.groupOfStep[call.step]]) }
        return try await current.execute(inputs)
    }

    public func describe() async -> RuntimeDescription {
        let times = await store.times, system = ProcessInfo.processInfo.operatingSystemVersion
        #if targetEnvironment(simulator)
        let emulated = true
        #else
        let emulated = false
        #endif
        return RuntimeDescription(
            name: runtime.name, version: "\(system.majorVersion).\(system.minorVersion).\(system.patchVersion)",
            computeUnit: runtime.computeUnit, loadMilliseconds: times.total, compileMilliseconds: times.compile,
            emulated: emulated, versions: runtime.versions)
    }

    /// Inputs for an execution whose result nobody reads: zeros, but the ranges of a step group, by which is divided.
    private static func unread(_ bundle: ExportedBundle, _ ranges: [Tensor]?) -> [String: AnyTensor] {
        var inputs: [String: AnyTensor] = [:]
        for port in bundle.inputs {
            switch port.kind {
            case .float32: inputs[port.name] = .float(Tensor(zeros: port.shape))
            case .int64:
                let values = [Int64](repeating: 0, count: port.shape.reduce(1, *))
                inputs[port.name] = .integer(IntegerTensor(shape: port.shape, values: values))
            }
        }
        if let first = ranges?.first { inputs["ranges"] = .float(first) }
        return inputs
    }
}
