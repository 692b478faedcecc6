import DQSampler
import DQTesting
import Foundation
import XCTest

/// The golden vectors.
enum Golden {
    static let cases = [
        "ddim-corrected", "ddim-guided", "ddim-noise", "dpm-history", "euler-latents", "overflow", "step-vectors", "trajectory",
    ]

    static let folder = goldenFolder

    static func bundle(_ name: String) throws -> ExportedBundle {
        try ExportedBundle(folder.appendingPathComponent("\(name)/bundle", isDirectory: true), target: "golden")
    }

    static func replay(_ name: String, _ bundle: ExportedBundle, _ reference: Reference, teacherForced: Bool) throws -> ReplayNetwork {
        try ReplayNetwork(
            SafetensorsFile(folder.appendingPathComponent("\(name)/replay.safetensors")), seeds: reference.seeds,
            executionsPerRollout: bundle.table.calls * (bundle.guidance == 1 ? 1 : 2), teacherForced: teacherForced)
    }

    /// Replays a case and writes its report into `folder`.
    static func report(_ name: String, to folder: URL, seeds: Int? = nil, teacherForced: Bool = true) async throws {
        _ = try await Sampling.run(
            self.folder.appendingPathComponent("\(name)/bundle", isDirectory: true), target: "golden", report: folder,
            seeds: seeds, teacherForced: teacherForced
        ) { try replay(name, $0, $1, teacherForced: teacherForced) }
    }

    static func expected(_ name: String) -> URL { folder.appendingPathComponent("\(name)/expected", isDirectory: true) }

    static func json(_ folder: URL) throws -> JSONObject {
        let file = folder.appendingPathComponent(Report.jsonName)
        return try JSONReader.read(Array(try Data(contentsOf: file)), name: file.path).asObject(file.path)
    }
}

/// A folder of its own for one test, which goes afterwards.
func withTemporaryFolder(_ body: (URL) async throws -> Void) async throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("dq-\(UUID().uuidString)", isDirectory: true)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    try await body(folder)
}

/// NaN agrees with NaN; otherwise the relative difference is at most 1e-6.
func agrees(_ one: Double, _ other: Double) -> Bool {
    one == other || (one.isNaN && other.isNaN) || abs(one - other) <= 1e-6 * max(abs(one), abs(other))
}

/// Checks that `body` throws a SampleError of one line that has all `parts`.
func assertRefused(_ parts: String..., file: StaticString = #filePath, line: UInt = #line, _ body: () throws -> Void) {
    XCTAssertThrowsError(try body(), file: file, line: line) { error in
        guard let error = error as? SampleError else { return XCTFail("\(error)", file: file, line: line) }
        XCTAssertFalse(error.description.contains("\n"), file: file, line: line)
        for part in parts {
            XCTAssert(error.description.contains(part), "\(error) lacks '\(part)'", file: file, line: line)
        }
    }
}
