/// Both rollouts of every seed: its own, and at the simulation's latents.
public struct Run: Sendable {
    /// Called after every network call, from wherever the run runs.
    public typealias OnProgress = @Sendable (Progress) -> Void

    /// How far a run is.
    public struct Progress: Sendable {
        public let done: Int
        public let total: Int
        /// From the mean time of a call so far.
        public let secondsLeft: Double
    }

    /// S seeds, N calls.
    public struct Result: Sendable {
        /// (N+1, S, C, H, W), own rollouts.
        public internal(set) var latents: Tensor
        /// (N, S, C, H, W), outputs at the simulation's latents; nil if left out.
        public internal(set) var outputsAtSimulation: Tensor?
        /// N medians over seeds and rollouts.
        public internal(set) var stepMilliseconds: [Double] = []
    }

    private let bundle: ExportedBundle
    private let reference: Reference
    private let denoiser: Denoiser
    private let teacherForced: Bool
    private let onProgress: OnProgress

    /// - Throws: SampleError: the file of the step vectors is damaged.
    public init(
        bundle: ExportedBundle, reference: Reference, network: any Network, teacherForced: Bool = true,
        onProgress: @escaping OnProgress = { _ in }
    ) throws {
        (self.bundle, self.reference) = (bundle, reference)
        denoiser = try Denoiser(bundle, network)
        (self.teacherForced, self.onProgress) = (teacherForced, onProgress)
    }

    /// - Throws: SampleError: the network refuses or the bundle is damaged. CancellationError: the task was cancelled.
    public func run() async throws -> Result {
        let table = bundle.table, shape = [reference.seeds] + reference.shape
        var result = Result(
            latents: Tensor(zeros: [table.calls + 1] + shape),
            outputsAtSimulation: teacherForced ? Tensor(zeros: [table.calls] + shape) : nil)
        try await warmUp()
        var meter = Meter(calls: table.calls, total: reference.seeds * table.calls * (teacherForced ? 2 : 1))
        for seed in 0..<reference.seeds {
            let conditions = Conditions(
                conditional: try reference.conditioning(seed, unconditional: false),
                unconditional: bundle.guidance == 1 ? nil : try reference.conditioning(seed, unconditional: true))
            var latents = [try reference.start(seed)], outputs: [Tensor] = []
            result.latents.setBlock(at: [0, seed], to: latents[0])
            for k in 0..<table.calls {
                outputs.append(try await answer(latents[k], k, conditions, &meter))
                let noise = table.addsNoise(at: k) ? try reference.noise(k, seed) : nil
                latents.append(table.advance(k, latents: latents, outputs: outputs, noise: noise))
                result.latents.setBlock(at: [k + 1, seed], to: latents[k + 1])
            }
            guard teacherForced else { continue }
            for k in 0..<table.calls {
                let output = try await answer(try reference.simulation(k, seed), k, conditions, &meter)
                result.outputsAtSimulation?.setBlock(at: [k, seed], to: output)
            }
        }
        result.stepMilliseconds = meter.medians
        return result
    }

    private func warmUp() async throws {
        let conditioning = try reference.conditioning(0, unconditional: false)
        for step in bundle.schedule.firstSteps {
            try await denoiser.warmUp(try reference.start(0), step, conditioning)
        }
    }

    /// network(x, k), whose time is counted.
    private func answer(_ x: Tensor, _ k: Int, _ conditions: Conditions, _ meter: inout Meter) async throws -> Tensor {
        let answer = try await denoiser.answer(x, k, conditions)
        onProgress(meter.count(k, milliseconds: answer.milliseconds))
        return answer.output
    }
}
