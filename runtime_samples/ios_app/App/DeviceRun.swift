#if canImport(SwiftUI) && canImport(CoreML)
import DQCoreML
import DQSampler
import Foundation

/// One run of a bundle that lies in the app.
struct DeviceRun: Sendable {
    let folder: URL
    let units: ComputeUnits
    let keepFunctions: Bool
    /// nil: all.
    let seeds: Int?

    /// Folders in the app that hold a bundle.
    static var bundles: [URL] {
        guard let resources = Bundle.main.resourceURL else { return [] }
        let folders = try? FileManager.default.contentsOfDirectory(at: resources, includingPropertiesForKeys: nil)
        return (folders ?? []).filter {
            FileManager.default.fileExists(atPath: $0.appendingPathComponent("bundle.json").path)
        }.sorted { $0.path < $1.path }
    }

    /// Where the report goes: one folder per choice of compute units.
    var report: URL { URL.documentsDirectory.appendingPathComponent("report-\(units.rawValue)", isDirectory: true) }

    /// What to hand out.
    var files: [URL] { [Report.jsonName, Report.tensorsName].map { report.appendingPathComponent($0) } }

    /// - Throws: SampleError, or CancellationError.
    func run(onProgress: @escaping Run.OnProgress) async throws -> Sampling.Outcome {
        let (units, keepFunctions) = (units, keepFunctions)
        return try await Sampling.run(folder, target: "coreml", report: report, seeds: seeds, onProgress: onProgress) { bundle, _ in
            try await CoreMLNetwork(bundle, units: units, keepFunctions: keepFunctions)
        }
    }
}
#endif
