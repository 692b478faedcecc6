import Foundation

/// The whole way from a bundle to a report, which the programs and the app go.
public enum Sampling {
    public struct Outcome: Sendable {
        public let report: Report
        /// (C, H, W) per seed: the device's last latents, and those of the FP32 rollout.
        public let samples: [Tensor]
        public let references: [Tensor]
    }

    /// Not bound to any actor: an app that calls it stays responsive.
    ///
    /// - Parameters:
    ///   - folder: the bundle. target: the only one accepted, nil takes any. report: the folder to write into.
    ///   - seeds: run only the first; nil for all. steps, guidance: of those that the bundle holds; nil for the calibrated ones.
    ///   - teacherForced: whether the second half of the run happens.
    ///   - open: makes the network, when bundle and reference are known to be good.
    /// - Throws: SampleError: bad input, a runtime that refuses, or no place for the report. CancellationError.
    public static func run(
        _ folder: URL, target: String?, report: URL, seeds: Int? = nil, steps: Int? = nil, guidance: Double? = nil,
        teacherForced: Bool = true, onProgress: @escaping Run.OnProgress = { _ in },
        open: @Sendable (ExportedBundle, Reference) async throws -> any Network
    ) async throws -> Outcome {
        let bundle = try ExportedBundle(folder, target: target).at(steps: steps, guidance: guidance)
        let reference = try Reference(bundle, seeds: seeds)
        let network = try await open(bundle, reference)
        let run = try Run(
            bundle: bundle, reference: reference, network: network, teacherForced: teacherForced, onProgress: onProgress)
        let result = try await run.run()
        let written = try Report(bundle: bundle, reference: reference, result: result, runtime: await network.describe())
        try written.write(to: report)
        let last = reference.calls
        return Outcome(
            report: written, samples: (0..<reference.seeds).map { result.latents.block(at: [last, $0]) },
            references: try (0..<reference.seeds).map { try reference.fp32(last, $0) })
    }
}
