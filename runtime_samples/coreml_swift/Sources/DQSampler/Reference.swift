import Foundation

/// The held-out rollouts of a bundle, read block by block. S seeds, N network calls.
public struct Reference: Sendable {
    /// Seeds that are run: all, or the first ones.
    public let seeds: Int
    public let calls: Int
    /// (C, H, W).
    public let shape: [Int]
    private let file: SafetensorsFile
    private let conditioning: [ExportedBundle.Port]

    /// - Parameter limit: run only the first of them; nil for all.
    /// - Throws: SampleError: a tensor is missing or of another shape, or there are not so many seeds.
    public init(_ bundle: ExportedBundle, seeds limit: Int?) throws {
        file = try SafetensorsFile(bundle.folder.appendingPathComponent("reference.safetensors"))
        calls = bundle.table.calls
        shape = Array(bundle.output.shape.dropFirst())
        conditioning = bundle.conditioning
        let all = file.shape(of: "start")?.first ?? 0
        guard all > 0 else { throw SampleError("reference.safetensors has no seeds in 'start'; export the bundle again") }
        guard (1...all).contains(limit ?? all) else {
            throw SampleError("--seeds \(limit ?? all) must be 1-\(all), the held-out seeds of the bundle; change --seeds")
        }
        seeds = limit ?? all
        let run = [all] + shape
        var wanted = [("start", run), ("fp32_latents", [calls + 1] + run), ("simulation_latents", [calls + 1] + run)]
        if bundle.table.addsNoise { wanted.append(("step_noise", [calls] + run)) }
        for port in conditioning {
            wanted.append(("cond.\(port.name)", [all] + port.shape.dropFirst()))
            if bundle.guidance != 1 { wanted.append(("uncond.\(port.name)", [all] + port.shape.dropFirst())) }
        }
        for (name, shape) in wanted {
            guard file.shape(of: name) == shape else {
                let got = file.shape(of: name).map { "\($0)" } ?? "none"
                throw SampleError("reference.safetensors: '\(name)' must have shape \(shape), got \(got); export the bundle again")
            }
        }
    }

    /// (C, H, W).
    public func start(_ seed: Int) throws -> Tensor { try file.floats("start", at: [seed]) }

    /// (C, H, W), of step k.
    public func noise(_ k: Int, _ seed: Int) throws -> Tensor { try file.floats("step_noise", at: [k, seed]) }

    /// (C, H, W), the FP32 rollout after k calls.
    public func fp32(_ k: Int, _ seed: Int) throws -> Tensor { try file.floats("fp32_latents", at: [k, seed]) }

    /// (C, H, W), the integer simulation's own rollout after k calls.
    public func simulation(_ k: Int, _ seed: Int) throws -> Tensor { try file.floats("simulation_latents", at: [k, seed]) }

    /// The conditioning of one seed by name, batch 1.
    public func conditioning(_ seed: Int, unconditional: Bool) throws -> [String: AnyTensor] {
        var values: [String: AnyTensor] = [:]
        for port in conditioning {
            let name = (unconditional ? "uncond." : "cond.") + port.name
            values[port.name] = try file.block(name, at: [seed]).reshaped(port.shape)
        }
        return values
    }
}
