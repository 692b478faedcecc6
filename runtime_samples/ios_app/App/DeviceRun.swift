#if canImport(SwiftUI)
import DQDevice
import DQSampler
import Foundation

/// One run of a bundle that lies in the app.
struct DeviceRun: Sendable {
    let folder: URL
    let runtime: DeviceRuntime
    let unit: DeviceRuntime.Unit
    let keepFunctions: Bool
    /// nil: all.
    let seeds: Int?

    /// Where the report goes: one folder per runtime and choice of compute units.
    var report: URL {
        URL.documentsDirectory.appendingPathComponent("report-\(runtime.rawValue)-\(unit.id)", isDirectory: true)
    }

    /// What to hand out.
    var files: [URL] { [Report.jsonName, Report.tensorsName].map { report.appendingPathComponent($0) } }

    /// - Throws: SampleError, or CancellationError.
    func run(onProgress: @escaping Run.OnProgress) async throws -> Sampling.Outcome {
        let (runtime, unit, keepFunctions) = (runtime, unit, keepFunctions)
        return try await Sampling.run(
            folder, target: runtime.rawValue, report: report, seeds: seeds, onProgress: onProgress
        ) { bundle, _ in
            try await runtime.open(bundle, unit: unit, keepFunctions: keepFunctions)
        }
    }
}
#endif
