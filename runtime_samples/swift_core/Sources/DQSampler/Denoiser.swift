/// What the network is given besides the sample, by name, batch 1.
public struct Conditions: Sendable {
    public let conditional: [String: AnyTensor]
    /// nil without guidance.
    public let unconditional: [String: AnyTensor]?

    public init(conditional: [String: AnyTensor], unconditional: [String: AnyTensor]?) {
        (self.conditional, self.unconditional) = (conditional, unconditional)
    }
}

/// network(x, k): scales the sample, executes once or twice, combines the answers of guidance, and corrects.
public struct Denoiser: Sendable {
    private let bundle: ExportedBundle
    private let network: any Network
    private let stepVectors: [Tensor]?

    /// - Throws: SampleError: the file of the step vectors is damaged.
    public init(_ bundle: ExportedBundle, _ network: any Network) throws {
        (self.bundle, self.network) = (bundle, network)
        stepVectors = try bundle.stepVectors()
    }

    /// Executes step k once at `x`, (C, H, W); nobody reads the answer.
    public func warmUp(_ x: Tensor, _ k: Int, _ conditioning: [String: AnyTensor]) async throws {
        try await network.prepare(step: k)
        try await network.warmUp(call(x, k, conditioning))
    }

    /// f[k] at `x`, both (C, H, W), after guidance and correction; and the time of the network alone.
    /// - Throws: SampleError: the network refuses. CancellationError: the task was cancelled.
    public func answer(_ x: Tensor, _ k: Int, _ conditions: Conditions) async throws -> (output: Tensor, milliseconds: Double) {
        try Task.checkCancellation()
        try await network.prepare(step: k)
        let conditional = call(x, k, conditions.conditional)
        let start = ContinuousClock.now
        var output = try await executed(conditional)
        if let unconditional = conditions.unconditional {
            let other = try await executed(call(x, k, unconditional))
            let weight = Float(bundle.guidance)
            for index in output.values.indices {
                output.values[index] = other.values[index] + weight * (output.values[index] - other.values[index])
            }
        }
        let milliseconds = (ContinuousClock.now - start).milliseconds
        let guided = output.reshaped(x.shape)
        return (bundle.table.correction?.after(guided, k) ?? guided, milliseconds)
    }

    /// An answer of the bundle's shape: two of different shapes cannot be combined.
    private func executed(_ call: NetworkCall) async throws -> Tensor {
        let output = try await network.execute(call)
        guard output.shape == bundle.output.shape else {
            throw SampleError("step \(call.step) answers with shape \(output.shape), the bundle says \(bundle.output.shape); export again")
        }
        return output
    }

    private func call(_ x: Tensor, _ k: Int, _ conditioning: [String: AnyTensor]) -> NetworkCall {
        let scaled = x.scaled(by: bundle.table.inputScale[k]), given = bundle.table.correction?.before(scaled, k) ?? scaled
        return NetworkCall(
            step: k, sample: given.reshaped([1] + x.shape), timestep: bundle.table.timesteps[k], stepVectors: stepVectors?[k],
            conditioning: conditioning)
    }
}
