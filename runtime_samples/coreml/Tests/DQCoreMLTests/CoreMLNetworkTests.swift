@testable import DQCoreML
import CoreML
import DQSampler
import DQTesting
import Foundation
import XCTest

/// The network around Core ML, with the stand-in for it: which function, which inputs, what is loaded and let go.
final class CoreMLNetworkTests: XCTestCase {
    private static let inputs = ["sample", "timestep", "class_labels"]

    override func setUp() { StandInLog.shared.clear() }

    /// What a stand-in package answers to zeros: the sum of all inputs but the sample.
    private func answer(_ network: any Network, step: Int, label: Int64 = 0, timestep: Float = 0) async throws -> Float {
        try await network.prepare(step: step)
        let call = NetworkCall(
            step: step, sample: Tensor(shape: [1, 3, 6, 6], values: [Float](repeating: 1, count: 108)), timestep: timestep,
            conditioning: ["class_labels": .integer(IntegerTensor(shape: [1], values: [label]))])
        let output = try await network.execute(call)
        XCTAssertEqual(output.shape, [1, 3, 6, 6])
        return output.values[0]
    }

    private func function(_ factor: Float, inputs: [String] = inputs, output: String = "output") -> StandInFunction {
        StandInFunction(inputs: inputs, output: output, factor: factor)
    }

    func testEveryStepExecutesTheFunctionOfItsGroup() async throws {
        try await StandInBundle("dpm-history", ["model.mlpackage": ["steps_g0": function(2), "steps_g1": function(5)]]).use { bundle in
            let network = try await CoreMLRuntime.open(bundle)
            for (step, factor) in [2, 2, 5, 5, 5].enumerated() {
                let got = try await answer(network, step: step, label: 7, timestep: 100)
                XCTAssertEqual(got, Float(factor) + 107)
            }
            let loaded = StandInLog.shared.loaded
            XCTAssertEqual(Array(loaded.prefix(2)), ["steps_g0", "steps_g1"])
        }
    }

    func testKeepingFunctionsLoadsEachOnce() async throws {
        try await StandInBundle("dpm-history", ["model.mlpackage": ["steps_g0": function(2), "steps_g1": function(5)]]).use { bundle in
            let network = try await CoreMLRuntime.open(bundle, units: .cpu, keepFunctions: true)
            for step in [0, 1, 2, 3, 4, 0, 1, 2] { _ = try await answer(network, step: step) }
            XCTAssertEqual(StandInLog.shared.loaded.sorted(), ["steps_g0", "steps_g1"])
            let runtime = await network.describe()
            XCTAssertEqual(runtime.computeUnit, "CPU, planned operations: CPU 1, GPU 1, Neural Engine 1")
            XCTAssertGreaterThan(runtime.loadMilliseconds ?? 0, runtime.compileMilliseconds ?? 0)
        }
    }

    func testAPackageWithoutFunctionsIsLoadedWithoutAName() async throws {
        let single = try await loadedNames(methods: ["main"], function: "main")
        XCTAssertEqual(single, ["without a name"])
    }

    func testStepVectorsAreThoseOfTheStep() async throws {
        let takesRow = function(1, inputs: ["sample", "step_vectors", "class_labels"])
        try await StandInBundle("step-vectors", ["model.mlpackage": ["steps_g0": takesRow, "steps_g1": takesRow]]).use { bundle in
            let network = try await CoreMLRuntime.open(bundle), rows = try XCTUnwrap(bundle.stepVectors())
            for step in 0..<5 {
                try await network.prepare(step: step)
                let output = try await network.execute(
                    NetworkCall(
                        step: step, sample: Tensor(zeros: [1, 1, 6, 6]), timestep: 1000, stepVectors: rows[step],
                        conditioning: ["class_labels": .integer(IntegerTensor(shape: [1], values: [3]))]))
                XCTAssertEqual(output.values[0], rows[step].values.reduce(3, +))
            }
        }
    }

    func testRangesAreThoseOfTheStepGroup() async throws {
        let main = function(1, inputs: Self.inputs + ["ranges"])
        try await StandInBundle("ddim-guided", ["model.mlpackage": ["main": main]], methods: ["main"]).use { bundle in
            let network = try await CoreMLRuntime.open(bundle)
            for (step, sum) in [6, 6, 22, 22, 22].enumerated() {  // rows 0 1 2 3 and 4 5 6 7
                try await network.prepare(step: step)
                let output = try await network.execute(
                    NetworkCall(
                        step: step, sample: Tensor(zeros: [1, 1, 6, 6]), timestep: 0,
                        conditioning: ["class_labels": .integer(IntegerTensor(shape: [1], values: [0]))]))
                XCTAssertEqual(output.values[0], Float(sum))
            }
        }
    }

    func testAChunkTakesWhatTheOneBeforeGave() async throws {
        let chunks = [
            "chunks/chunk1.mlpackage": ["main": function(2, output: "middle")],
            "chunks/chunk2.mlpackage": ["main": function(3, inputs: ["middle", "timestep"])],
        ]
        try await StandInBundle("dpm-history", chunks, methods: ["main"]).use { bundle in
            let network = try await CoreMLRuntime.open(bundle)
            let got = try await answer(network, step: 0, label: 4, timestep: 10)
            XCTAssertEqual(got, 3 * (2 + 4 + 10) + 10)
        }
    }

    func testTheWholeRunWritesAReport() async throws {
        try await StandInBundle("dpm-history", ["model.mlpackage": ["steps_g0": function(1), "steps_g1": function(1)]]).use { bundle in
            let report = bundle.folder.appendingPathComponent("report", isDirectory: true)
            let outcome = try await Sampling.run(bundle.folder, target: "golden", report: report) { bundle, _ in
                try await CoreMLRuntime.open(bundle)
            }
            XCTAssertEqual(outcome.samples.count, 2)
            XCTAssert(FileManager.default.fileExists(atPath: report.appendingPathComponent(Report.jsonName).path))
        }
    }

    func testCompiledPackagesGoWithTheNetwork() async throws {
        _ = try await loadedNames(methods: ["main"], function: "main")
        let compiled = StandInLog.shared.compiled
        XCTAssertEqual(compiled.count, 1)
        for _ in 0..<200 where FileManager.default.fileExists(atPath: compiled[0].path) {
            try await Task.sleep(for: .milliseconds(10))  // whoever loaded last may still be letting go
        }
        XCTAssertFalse(FileManager.default.fileExists(atPath: compiled[0].path))
    }

    func testRefusalsAreOneLine() async throws {
        let wrong: [([String: [String: StandInFunction]], String)] = [
            (["model.mlpackage": ["other": function(1)]], "cannot load function 'main'"),
            (["model.mlpackage": ["main": function(1, inputs: ["sample", "pixels"])]], "input 'pixels'"),
            (["model.mlpackage": ["main": function(1, output: "out")]], "no output 'output'"),
            (["chunks/part1.mlpackage": ["main": function(1)]], "neither a .mlpackage nor a folder"),
        ]
        for (packages, text) in wrong {
            try await StandInBundle("dpm-history", packages, methods: ["main"]).use { bundle in
                do {
                    _ = try await answer(try await CoreMLRuntime.open(bundle), step: 0)
                    XCTFail("accepted: \(text)")
                } catch let error as SampleError { XCTAssert(error.description.contains(text), "\(error)") }
            }
        }
    }

    private func loadedNames(methods: [String], function name: String) async throws -> [String] {
        try await StandInBundle("dpm-history", ["model.mlpackage": [name: function(1)]], methods: methods).use { bundle in
            let network = try await CoreMLRuntime.open(bundle)
            for step in 0..<5 { _ = try await answer(network, step: step) }
        }
        return StandInLog.shared.loaded
    }
}
