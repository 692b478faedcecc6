import CoreAI
import CoreML
import DQDevice
import DQSampler
import DQTesting
import Foundation
import XCTest

/// Which runtime executes which bundle, with the stand-ins for both.
final class DeviceRuntimeTests: XCTestCase {
    private static let shape = [1, 3, 6, 6]

    private static let coreml = StandInBundle(
        "dpm-history",
        [
            "model.mlpackage": [
                "main": CoreML.StandInFunction(inputs: ["sample", "timestep", "class_labels"], output: "output", factor: 2)
            ]
        ], methods: ["main"], target: "coreml")

    private static let coreai = StandInBundle(
        "dpm-history",
        [
            "model.aimodel": StandInProgram([
                "main": CoreAI.StandInFunction(
                    inputs: [.init("sample", shape, .float16), .init("timestep", [1], .float32), .init("class_labels", [1], .int32)],
                    output: .init("output", shape, .float16), factor: 2)
            ])
        ], methods: ["main"], target: "coreai")

    /// Runs a bundle as the app does; the runtime and unit of the report.
    private func run(_ folder: URL, unit: Int = 0) async throws -> (name: String, unit: String) {
        let runtime = try DeviceRuntime(of: folder), unit = runtime.units[unit]
        XCTAssertNil(runtime.missing)
        let outcome = try await Sampling.run(
            folder, target: runtime.rawValue, report: folder.appendingPathComponent("report", isDirectory: true), seeds: 1
        ) { bundle, _ in try await runtime.open(bundle, unit: unit, keepFunctions: false) }
        return (outcome.report.runtime.name, outcome.report.runtime.computeUnit)
    }

    func testTheTargetOfTheBundleDecides() async throws {
        try await Self.coreml.use { bundle in
            let ran = try await run(bundle.folder)
            XCTAssertEqual(ran.name, "Core ML (Swift)")
            XCTAssert(ran.unit.hasPrefix("CPU and Neural Engine"), ran.unit)
        }
        try await Self.coreai.use { bundle in
            let ran = try await run(bundle.folder)
            XCTAssertEqual(ran.name, "Core AI (Swift)")
            XCTAssertEqual(ran.unit, "Neural Engine preferred")
        }
    }

    func testTheUnitChosenIsTheUnitReported() async throws {
        try await Self.coreai.use { bundle in
            for (index, unit) in DeviceRuntime.coreai.units.enumerated() where unit.id != "gpu" {  // the stand-in has none
                let ran = try await run(bundle.folder, unit: index)
                XCTAssertEqual(ran.unit, unit.name)
            }
        }
    }

    func testAUnitOfTheOtherRuntimeIsRefused() async throws {
        let foreign = DeviceRuntime.coreml.units[0]
        try await Self.coreai.use { bundle in
            do {
                _ = try await DeviceRuntime.coreai.open(bundle, unit: foreign, keepFunctions: false)
                XCTFail("accepted")
            } catch let error as SampleError { XCTAssert(error.description.contains(foreign.name), "\(error)") }
        }
    }

    func testABundleForSomethingElseIsRefused() {
        let golden = goldenFolder.appendingPathComponent("dpm-history/bundle", isDirectory: true)
        for (folder, text) in [(golden, "this app runs coreml and coreai"), (goldenFolder, "cannot read")] {
            XCTAssertThrowsError(try DeviceRuntime(of: folder)) { error in
                XCTAssert("\(error)".contains(text), "\(error)")
            }
        }
    }

    func testWhatCannotRunIsListedWithTheReason() async throws {
        try await Self.coreai.use { bundle in
            let home = bundle.folder.appendingPathComponent("app", isDirectory: true)
            let sources = [("a", bundle.folder), ("b", goldenFolder.appendingPathComponent("dpm-history/bundle"))]
            for (name, source) in sources {
                let folder = home.appendingPathComponent(name, isDirectory: true)
                try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
                let file = folder.appendingPathComponent("bundle.json")
                try FileManager.default.copyItem(at: source.appendingPathComponent("bundle.json"), to: file)
            }
            try FileManager.default.createDirectory(at: home.appendingPathComponent("no-bundle"), withIntermediateDirectories: true)
            let found = DeviceBundle.all(in: home)
            XCTAssertEqual(found.map(\.folder.lastPathComponent), ["a", "b"])
            XCTAssertEqual(found.map(\.runtime), [.coreai, nil])
            XCTAssertNil(found[0].problem)
            XCTAssert(found[1].problem?.contains("target 'golden'") ?? false)
        }
    }
}
