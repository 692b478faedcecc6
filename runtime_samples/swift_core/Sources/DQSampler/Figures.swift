/// What a report says of the latents; the host computes it again and believes none of it.
public struct Figures: Sendable, Equatable {
    /// N medians over the seeds, of the relative error of x[k+1].
    public let errorToFP32: [Double]
    public let errorToSimulation: [Double]
    /// One per seed, dB.
    public let psnr: [Double]

    /// - Parameter latents: (N+1, S, C, H, W), own rollouts of the seeds of `reference`.
    /// - Throws: SampleError: the reference is damaged.
    public init(latents: Tensor, reference: Reference) throws {
        var fp32: [Double] = [], simulation: [Double] = [], psnr: [Double] = []
        for k in 1...reference.calls {
            var toFP32: [Double] = [], toSimulation: [Double] = []
            for seed in 0..<reference.seeds {
                let own = latents.block(at: [k, seed]), wanted = try reference.fp32(k, seed)
                toFP32.append(relativeError(own, wanted))
                toSimulation.append(relativeError(own, try reference.simulation(k, seed)))
                if k == reference.calls { psnr.append(DQSampler.psnr(own, wanted)) }
            }
            fp32.append(median(toFP32))
            simulation.append(median(toSimulation))
        }
        (errorToFP32, errorToSimulation, self.psnr) = (fp32, simulation, psnr)
    }

    /// `per_step` and `final` of report.json; what is not finite is null.
    public var json: JSONObject {
        let steps = errorToFP32.indices.map { k -> JSONValue in
            .object([
                "step": .integer(k), "error_fp32": .figure(errorToFP32[k]), "error_simulation": .figure(errorToSimulation[k]),
            ])
        }
        return ["per_step": .array(steps), "final": .object(["psnr": .array(psnr.map { .figure($0) })])]
    }
}
