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
    private let network: any Network
    private let stepVectors: [Tensor]?
    private let teacherForced: Bool
    private let onProgress: OnProgress

    /// - Throws: SampleError: the file of the step vectors is damaged.
    public init(
        bundle: ExportedBundle, reference: Reference, network: any Network, teacherForced: Bool = true,
        onProgress: @escaping OnProgress = { _ in }
    ) throws {
        (self.bundle, self.reference, self.network) = (bundle, reference, network)
        stepVectors = try bundle.stepVectors()
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
            let conditions = try Conditions(reference, seed, guided: bundle.guidance != 1)
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

    /// What a seed gives the network besides the sample. Unconditional: nil without guidance.
    private struct Conditions {
        let conditional: [String: AnyTensor]
        let unconditional: [String: AnyTensor]?

        init(_ reference: Reference, _ seed: Int, guided: Bool) throws {
            conditional = try reference.conditioning(seed, unconditional: false)
            unconditional = guided ? try reference.conditioning(seed, unconditional: true) : nil
        }
    }

    private func call(_ x: Tensor, _ k: Int, _ conditioning: [String: AnyTensor]) -> NetworkCall {
        let scaled = x.scaled(by: bundle.table.inputScale[k]), given = bundle.table.correction?.before(scaled, k) ?? scaled
        return NetworkCall(
            step: k, sample: given.reshaped([1] + x.shape), timestep: bundle.table.timesteps[k], stepVectors: stepVectors?[k],
            conditioning: conditioning)
    }

    private func warmUp() async throws {
        let conditioning = try reference.conditioning(0, unconditional: false)
        for step in bundle.schedule.firstSteps {
            try await network.prepare(step: step)
            try await network.warmUp(call(try reference.start(0), step, conditioning))
        }
    }

    /// network(x, k): (C, H, W) unscaled -> (C, H, W), after guidance and correction.
    private func answer(_ x: Tensor, _ k: Int, _ conditions: Conditions, _ meter: inout Meter) async throws -> Tensor {
        try Task.checkCancellation()
        try await network.prepare(step: k)
        let conditional = call(x, k, conditions.conditional)
        let start = ContinuousClock.now
        var output = try await network.execute(conditional)
        if let unconditional = conditions.unconditional {
            let other = try await network.execute(call(x, k, unconditional))
            let weight = Float(bundle.guidance)
            for index in output.values.indices {
                output.values[index] = other.values[index] + weight * (output.values[index] - other.values[index])
            }
        }
        onProgress(meter.count(k, milliseconds: (ContinuousClock.now - start).milliseconds))
        guard output.shape == bundle.output.shape else {
            throw SampleError("step \(k) answers with shape \(output.shape), the bundle says \(bundle.output.shape); export again")
        }
        let guided = output.reshaped(x.shape)
        return bundle.table.correction?.after(guided, k) ?? guided
    }
}
