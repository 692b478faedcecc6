/// One execution of the lowered program.
public struct NetworkCall: Sendable {
    /// 0..N-1: decides on the method and the ranges.
    public let step: Int
    /// (1, C, H, W), already scaled and shifted.
    public let sample: Tensor
    public let timestep: Float
    /// (1, V): what the program takes in the place of the timestep; nil: it takes the timestep.
    public let stepVectors: Tensor?
    /// By name, batch 1.
    public let conditioning: [String: AnyTensor]

    public init(
        step: Int, sample: Tensor, timestep: Float, stepVectors: Tensor? = nil, conditioning: [String: AnyTensor]
    ) {
        (self.step, self.sample, self.timestep, self.stepVectors) = (step, sample, timestep, stepVectors)
        self.conditioning = conditioning
    }
}

/// What executed, for the report.
public struct RuntimeDescription: Sendable {
    public let name: String
    public let version: String
    /// E.g. "CPU and Neural Engine".
    public let computeUnit: String
    /// nil: not measured.
    public let loadMilliseconds: Double?
    /// Of it, compiling at the first load; nil: not measured.
    public let compileMilliseconds: Double?
    /// No device ran: times say nothing.
    public let emulated: Bool
    /// What else has a name or version worth knowing; joins `versions` of the report.
    public let versions: [String: String]

    public init(
        name: String, version: String, computeUnit: String, loadMilliseconds: Double? = nil, compileMilliseconds: Double? = nil,
        emulated: Bool = false, versions: [String: String] = [:]
    ) {
        (self.name, self.version, self.computeUnit) = (name, version, computeUnit)
        (self.loadMilliseconds, self.compileMilliseconds) = (loadMilliseconds, compileMilliseconds)
        (self.emulated, self.versions) = (emulated, versions)
    }
}

/// What runs the network: a runtime, or a recording of one.
public protocol Network: Sendable {
    /// Makes ready whatever `step` needs; its time is not part of the step's.
    func prepare(step: Int) async throws
    /// Executes once, result thrown away: the first execution allocates.
    func warmUp(_ call: NetworkCall) async throws
    /// - Returns: (1, C, H, W).
    /// - Throws: SampleError: the runtime refuses.
    func execute(_ call: NetworkCall) async throws -> Tensor
    /// Asked after the run, since what is loaded late counts too.
    func describe() async -> RuntimeDescription
}

extension Network {
    public func prepare(step: Int) async throws {}

    public func warmUp(_ call: NetworkCall) async throws { _ = try await execute(call) }
}
