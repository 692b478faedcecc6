import DQSampler
import Foundation
import XCTest

/// A bundle that is not as it was exported is refused before anything runs.
final class BundleTests: XCTestCase {
    private func withCopy(_ name: String, _ body: (URL) throws -> Void) async throws {
        try await withTemporaryFolder { folder in
            let copy = folder.appendingPathComponent("bundle", isDirectory: true)
            try FileManager.default.copyItem(at: Golden.folder.appendingPathComponent("\(name)/bundle"), to: copy)
            try body(copy)
        }
    }

    private func edit(_ folder: URL, _ old: String, _ new: String) throws {
        let file = folder.appendingPathComponent("bundle.json")
        let text = try String(contentsOf: file, encoding: .utf8)
        XCTAssert(text.contains(old), old)
        try Data(text.replacingOccurrences(of: old, with: new).utf8).write(to: file)
    }

    func testAChangedFileIsRefused() async throws {
        for name in ["model.bin", "reference.safetensors", "ranges.safetensors"] {
            try await withCopy("ddim-guided") { folder in
                let file = folder.appendingPathComponent(name)
                var bytes = try Data(contentsOf: file)
                bytes[bytes.count - 1] ^= 1
                try bytes.write(to: file)
                assertRefused("\(name) was changed") { _ = try ExportedBundle(folder, target: "golden") }
                try FileManager.default.removeItem(at: file)
                assertRefused("cannot read", name) { _ = try ExportedBundle(folder, target: "golden") }
            }
        }
    }

    func testOtherKindsAreRefused() async throws {
        let edits: [(String, String, String)] = [
            ("dq-toolchain/bundle", "other", "must be dq-toolchain/bundle"),
            ("\"schema_version\": 1", "\"schema_version\": 2", "version 1"),
            ("\"target\": \"golden\"", "\"target\": \"coreml\"", "target 'coreml'"),
            ("\"guidance\": 2.5", "\"guidance\": null", "guidance must be a number, got null"),
            ("\"guidance\": 2.5", "\"guidance\": NaN", "no valid JSON"),
            ("\"model.bin\": \"b0", "\"../model.bin\": \"b0", "'model.bin'"),
            ("\"ranges.safetensors\": \"26", "\"../ranges\": \"26\", \"ranges.safetensors\": \"26", "must stay in the folder"),
            ("\"dtype\": \"int64\"", "\"dtype\": \"int4\"", "int4"),
            ("\"name\": \"sample\"", "\"name\": \"pixels\"", "must have inputs sample"),
        ]
        for (old, new, text) in edits {
            try await withCopy("ddim-guided") { folder in
                try edit(folder, old, new)
                assertRefused(text) { _ = try ExportedBundle(folder, target: "golden") }
            }
        }
    }

    /// `damaged-bundles/CASE/NAME` holds the files that take the place of those in `CASE/bundle`: the list that every program obeys.
    func testEveryDamagedBundleIsRefused() async throws {
        let files = FileManager.default, list = Golden.folder.appendingPathComponent("damaged-bundles", isDirectory: true)
        var count = 0
        for name in try files.contentsOfDirectory(atPath: list.path) {
            let folder = list.appendingPathComponent(name, isDirectory: true)
            for damage in try files.contentsOfDirectory(atPath: folder.path) {
                let changed = folder.appendingPathComponent(damage, isDirectory: true)
                try await withCopy(name) { copy in
                    for file in try files.contentsOfDirectory(atPath: changed.path) {
                        try Data(contentsOf: changed.appendingPathComponent(file)).write(to: copy.appendingPathComponent(file))
                    }
                    let said = refusal {
                        let bundle = try ExportedBundle(copy, target: "golden")
                        _ = try bundle.ranges()
                        _ = try bundle.stepVectors()
                        _ = try Reference(bundle, seeds: nil)
                    }
                    XCTAssertNotNil(said, "\(damage) is not refused")
                    XCTAssertLessThanOrEqual(said?.count ?? 0, 1000, damage)
                    XCTAssertEqual(said?.contains("\u{1B}"), false, damage)
                }
                count += 1
            }
        }
        XCTAssertGreaterThanOrEqual(count, 150)
    }

    func testALinkOrAFolderInThePlaceOfAFileIsRefused() async throws {
        try await withCopy("ddim-guided") { folder in
            let file = folder.appendingPathComponent("model.bin"), other = folder.appendingPathComponent("other.bin")
            try FileManager.default.moveItem(at: file, to: other)
            try FileManager.default.createSymbolicLink(at: file, withDestinationURL: other)
            assertRefused("link") { _ = try ExportedBundle(folder, target: "golden") }
            try FileManager.default.removeItem(at: file)
            try FileManager.default.createDirectory(at: file, withIntermediateDirectories: false)
            assertRefused("no regular file") { _ = try ExportedBundle(folder, target: "golden") }
        }
    }

    /// What a SampleError says; nil if nothing was thrown, or something else.
    private func refusal(_ body: () throws -> Void) -> String? {
        do { try body() } catch { return (error as? SampleError)?.description }
        return nil
    }

    func testRangesAreRowsOfTheGroups() throws {
        let ranges = try Golden.bundle("ddim-guided").ranges()
        XCTAssertEqual(ranges?.map(\.values), [[0, 1, 2, 3], [4, 5, 6, 7]])
        XCTAssertEqual(ranges?.first?.shape, [1, 4])
        XCTAssertNil(try Golden.bundle("ddim-noise").ranges())
    }

    func testSeedsHaveALimit() throws {
        let bundle = try Golden.bundle("ddim-guided")
        XCTAssertEqual(try Reference(bundle, seeds: nil).seeds, 3)
        XCTAssertEqual(try Reference(bundle, seeds: 2).seeds, 2)
        for seeds in [0, 4, -1] { assertRefused("must be 1-3") { _ = try Reference(bundle, seeds: seeds) } }
    }
}
