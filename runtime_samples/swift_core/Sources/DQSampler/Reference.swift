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
    /// - Throws: SampleError: a tensor is missing, of another shape or dtype, or holds NaN or infinity, or there are not so many seeds.
    public init(_ bundle: ExportedBundle, seeds limit: Int?) throws {
        file = try SafetensorsFile(bundle.folder.appendingPathComponent(bundle.referenceName))
        calls = bundle.table.calls
        shape = Array(bundle.output.shape.dropFirst())
        conditioning = bundle.conditioning
        let all = file.shape(of: "start")?.first ?? 0
        guard all > 0 else { throw SampleError("\(bundle.referenceName) has no seeds in 'start'; export the bundle again") }
        guard (1...all).contains(limit ?? all) else {
            throw SampleError("--seeds \(limit ?? all) must be 1-\(all), the held-out seeds of the bundle; change --seeds")
        }
        seeds = limit ?? all
        let run = [all] + shape
        var wanted: [(name: String, shape: [Int], kind: SafetensorsFile.Kind)] = [
            ("start", run, .float32), ("fp32_latents", [calls + 1] + run, .float32), ("simulation_latents", [calls + 1] + run, .float32),
        ]
        if bundle.table.addsNoise { wanted.append(("step_noise", [calls] + run, .float32)) }
        for port in conditioning {
            let shape = [all] + port.shape.dropFirst(), kind: SafetensorsFile.Kind = port.kind == .float32 ? .float32 : .int64
            wanted.append(("cond.\(port.name)", shape, kind))
            if bundle.guidance != 1 { wanted.append(("uncond.\(port.name)", shape, kind)) }
        }
        for (name, shape, kind) in wanted {
            guard file.shape(of: name) == shape, file.kind(of: name) == kind else {
                let got = file.shape(of: name).map { "\(file.kind(of: name)?.rawValue ?? "") \($0)" } ?? "none"
                throw SampleError(
                    "\(bundle.referenceName): '\(name)' must be \(kind.rawValue) of shape \(shape), got \(got); export the bundle again")
            }
            guard file.isFinite(name) else {
                throw SampleError("\(bundle.referenceName): '\(name)' holds NaN or infinity; export the bundle again")
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
