@testable import DQSampler
import Foundation
import XCTest

/// A report appears whole or not at all.
final class ReportTests: XCTestCase {
    func testAnOldReportIsRemovedWhenTheNewOneFails() async throws {
        try await withTemporaryFolder { folder in
            try await Golden.report("dpm-history", to: folder)
            let tensors = folder.appendingPathComponent(Report.tensorsName)
            try FileManager.default.removeItem(at: tensors)
            try FileManager.default.createDirectory(at: tensors, withIntermediateDirectories: false)  // in the way of the rename
            do {
                try await Golden.report("dpm-history", to: folder)
                XCTFail("a folder was overwritten")
            } catch let error as SampleError { XCTAssert(error.description.contains("cannot write"), "\(error)") }
            XCTAssertEqual(try names(folder), [Report.tensorsName], "neither an old report.json nor a temporary file")
        }
    }

    func testAFailingWriterLeavesTheOldFile() async throws {
        try await withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("file")
            try WholeFile.write(file) { try $0(Data([1])) }
            assertRefused("cannot write") {
                try WholeFile.write(file) { put in
                    try put(Data([2]))
                    throw SampleError("full")
                }
            }
            XCTAssertEqual(try Data(contentsOf: file), Data([1]))
            XCTAssertEqual(try names(folder), ["file"])
        }
    }

    func testAReportHasNothingElseBesideIt() async throws {
        try await withTemporaryFolder { folder in
            try await Golden.report("overflow", to: folder)
            XCTAssertEqual(try names(folder), [Report.jsonName, Report.tensorsName])
            let report = try Golden.json(folder)
            let digest = try SHA256.of(file: folder.appendingPathComponent(Report.tensorsName))
            XCTAssertEqual(report["files"], .object([Report.tensorsName: .string(digest)]))
        }
    }

    func testTimesOfAnEmulatedDeviceAreNull() async throws {
        try await withTemporaryFolder { folder in
            let bundle = try Golden.bundle("dpm-history"), reference = try Reference(bundle, seeds: nil)
            let network = try Golden.replay("dpm-history", bundle, reference, teacherForced: true)
            let result = try await Run(bundle: bundle, reference: reference, network: network).run()
            XCTAssertEqual(result.stepMilliseconds.count, 5)
            for emulated in [true, false] {
                let runtime = RuntimeDescription(
                    name: "made up", version: "1", computeUnit: "none", loadMilliseconds: 7, compileMilliseconds: 2,
                    emulated: emulated)
                try Report(bundle: bundle, reference: reference, result: result, runtime: runtime).write(to: folder)
                let report = try Golden.json(folder)
                XCTAssertEqual(report["load_ms"], emulated ? .null : .number(7))
                XCTAssertEqual(report["compile_ms"], emulated ? .null : .number(2))
                XCTAssertEqual(report["emulated"], .bool(emulated))
                let steps = try report.required("step_ms", "").asArray("step_ms")
                XCTAssertEqual(steps.filter { $0 == .null }.count, emulated ? 5 : 0)
            }
        }
    }

    func testTheWayToTheBundle() {
        func url(_ path: String) -> URL { URL(fileURLWithPath: path, isDirectory: true) }
        XCTAssertEqual(relativePath(from: url("/a/bundle/report"), to: url("/a/bundle")), "..")
        XCTAssertEqual(relativePath(from: url("/a/x/../report"), to: url("/a/b/bundle")), "../b/bundle")
        XCTAssertEqual(relativePath(from: url("/a/bundle"), to: url("/a/bundle")), ".")
        XCTAssertEqual(relativePath(from: url("/a"), to: url("/a/bundle")), "bundle")
    }

    private func names(_ folder: URL) throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() }
}
