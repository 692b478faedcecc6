import CoreAI
import DQSampler
import DQTesting
import Foundation
import XCTest

@testable import DQCoreAI

/// The network around Core AI, with the stand-in for it: which function, which types and layouts, what is loaded and let go.
final class CoreAINetworkTests: XCTestCase {
    override func setUp() { StandInLog.shared.clear() }

    /// Factor times the sample plus the sum of all other inputs. The bundle is that of dpm-history.
    private func function(
        _ factor: Float, floats: NDArray.ScalarType = .float32, label: NDArray.ScalarType = .int32
    ) -> StandInFunction {
        let shape = [1, 3, 6, 6]
        return StandInFunction(
            inputs: [.init("sample", shape, floats), .init("timestep", [1], floats), .init("class_labels", [1], label)],
            output: .init("output", shape, floats), factor: factor)
    }

    private func bundle(_ functions: [String: StandInFunction], neuralEngine: Bool = true) -> StandInBundle<StandInProgram> {
        StandInBundle(
            "dpm-history", ["model.aimodel": StandInProgram(functions, neuralEngine: neuralEngine)],
            methods: functions.keys.sorted())
    }

    private func call(
        step: Int, label: Int64 = 0, timestep: Float = 0, _ values: [Float] = [Float](repeating: 1, count: 108)
    ) -> NetworkCall {
        NetworkCall(
            step: step, sample: Tensor(shape: [1, 3, 6, 6], values: values), timestep: timestep,
            conditioning: ["class_labels": .integer(IntegerTensor(shape: [1], values: [label]))])
    }

    private func answer(_ network: any Network, _ call: NetworkCall) async throws -> Tensor {
        try await network.prepare(step: call.step)
        return try await network.execute(call)
    }

    func testEveryStepExecutesTheFunctionOfItsGroup() async throws {
        try await bundle(["steps_g0": function(2), "steps_g1": function(5)]).use { bundle in
            let network = try await CoreAIRuntime.open(bundle)
            for (step, factor) in [2, 2, 5, 5, 5].enumerated() {
                let got = try await answer(network, call(step: step, label: 7, timestep: 100))
                XCTAssertEqual(got, Tensor(shape: [1, 3, 6, 6], values: [Float](repeating: Float(factor) + 107, count: 108)))
            }
            XCTAssertEqual(Array(StandInLog.shared.loaded.prefix(2)), ["steps_g0", "steps_g1"])
        }
    }

    func testStepVectorsAreThoseOfTheStep() async throws {
        let shape = [1, 1, 6, 6]
        let takesRow = StandInFunction(
            inputs: [.init("sample", shape, .float32), .init("step_vectors", [1, 7], .float32), .init("class_labels", [1], .int32)],
            output: .init("output", shape, .float32), factor: 1)
        let program = StandInProgram(["steps_g0": takesRow, "steps_g1": takesRow])
        try await StandInBundle("step-vectors", ["model.aimodel": program]).use { bundle in
            let network = try await CoreAIRuntime.open(bundle), rows = try XCTUnwrap(bundle.stepVectors())
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

    func testThePresentFunctionAndTheNextAreInMemory() async throws {
        let names = (0..<5).map { "steps_g\($0)" }, groups = (0..<5).map { [$0] }
        let program = StandInProgram(Dictionary(uniqueKeysWithValues: names.map { ($0, function(1)) }))
        let bundle = StandInBundle("dpm-history", ["model.aimodel": program], methods: names, stepGroups: groups)
        try await bundle.use { bundle in
            let network = try await CoreAIRuntime.open(bundle)
            for _ in 0..<3 { for step in 0..<5 { _ = try await answer(network, call(step: step)) } }
            XCTAssertLessThanOrEqual(StandInLog.shared.mostFunctions, 3, "of 5: the present, the next, one that is being let go")
            XCTAssertGreaterThanOrEqual(StandInLog.shared.loaded.count, 15)
        }
    }

    func testKeepingFunctionsLoadsEachOnce() async throws {
        try await bundle(["steps_g0": function(2), "steps_g1": function(5)]).use { bundle in
            let network = try await CoreAIRuntime.open(bundle, keepFunctions: true)
            for step in [0, 1, 2, 3, 4, 0, 1, 2] { _ = try await answer(network, call(step: step)) }
            XCTAssertEqual(StandInLog.shared.loaded.sorted(), ["steps_g0", "steps_g1"])
        }
    }

    func testTypesAreThoseOfTheProgram() async throws {
        for label in [NDArray.ScalarType.int32, .int64] {
            try await bundle(["main": function(1, floats: .float16, label: label)]).use { bundle in
                let network = try await CoreAIRuntime.open(bundle)
                let got = try await answer(network, call(step: 0, label: 4, timestep: 999.3, [Float](repeating: 0.1, count: 108)))
                // 999.3 and 0.1 in float16, their sum and 4 in float32, the answer in float16: 1003.5
                XCTAssertEqual(got.values, [Float](repeating: Float(Float16(Float(Float16(0.1)) + 4 + 999.5)), count: 108))
            }
        }
    }

    func testPaddingAndInterleavingAreRespected() async throws {
        let values = (0..<108).map { Float($0) - 50 }
        for interleave in [nil, NDArray.InterleaveLayout(dimension: 1, factor: 2), .init(dimension: 1, factor: 3)] {
            for padding in [0, 10] {
                for type in [NDArray.ScalarType.float32, .float16] {
                    var strided = function(3, floats: type)
                    for path in [\StandInFunction.inputs[0], \StandInFunction.output] {
                        strided[keyPath: path].padding = padding
                        strided[keyPath: path].interleave = interleave
                    }
                    try await bundle(["main": strided]).use { bundle in
                        let network = try await CoreAIRuntime.open(bundle)
                        let got = try await answer(network, call(step: 0, values))
                        XCTAssertEqual(got.values, values.map { 3 * $0 }, "\(type) \(padding) \(String(describing: interleave))")
                    }
                }
            }
        }
    }

    func testRangesAreThoseOfTheStepGroup() async throws {
        let shape = [1, 1, 6, 6]
        let main = StandInFunction(
            inputs: [
                .init("sample", shape, .float32), .init("timestep", [1], .float32), .init("class_labels", [1], .int32),
                .init("ranges", [1, 4], .float32),
            ], output: .init("output", shape, .float32), factor: 1)
        let bundle = StandInBundle("ddim-guided", ["model.aimodel": StandInProgram(["main": main])], methods: ["main"])
        try await bundle.use { bundle in
            let network = try await CoreAIRuntime.open(bundle)
            for (step, sum) in [6, 6, 22, 22, 22].enumerated() {  // rows 0 1 2 3 and 4 5 6 7
                let conditioning = ["class_labels": AnyTensor.integer(IntegerTensor(shape: [1], values: [0]))]
                let call = NetworkCall(step: step, sample: Tensor(zeros: shape), timestep: 0, conditioning: conditioning)
                let output = try await answer(network, call)
                XCTAssertEqual(output.values[0], Float(sum))
            }
        }
    }

    func testTheReportSaysWhatWasPreferred() async throws {
        let names: [ComputeUnit: (String, SpecializationOptions)] = [
            .default: ("all units, as Core AI chooses", .default), .cpuOnly: ("CPU only", .cpuOnly),
            .neuralEngine: ("Neural Engine preferred", .init(preferredComputeUnitKind: .neuralEngine)),
        ]
        for (unit, (name, options)) in names {
            StandInLog.shared.clear()
            try await bundle(["main": function(1)]).use { bundle in
                let network = try await CoreAIRuntime.open(bundle, unit: unit)
                _ = try await answer(network, call(step: 0))
                let runtime = await network.describe()
                XCTAssertEqual(runtime.name, "Core AI (Swift)")
                XCTAssertEqual(runtime.computeUnit, name)
                XCTAssertEqual(runtime.versions, ["core_ai_architecture": "s1n"])
                XCTAssertGreaterThan(runtime.loadMilliseconds ?? 0, runtime.compileMilliseconds ?? 0)
                XCTAssertGreaterThan(runtime.compileMilliseconds ?? 0, 0)
                XCTAssertEqual(StandInLog.shared.specialized.map(\.options), [options])
            }
        }
    }

    func testAProgramCompiledAheadTakesThePlaceOfTheBundlesOwn() async throws {
        let own = bundle(["main": function(1)]), ahead = StandInProgram(["main": function(9)])
        try await own.use { bundle in
            let compiled = bundle.folder.appendingPathComponent("model.s1n.aimodelc", isDirectory: true)
            try own.write(ahead, to: compiled)
            let network = try await CoreAIRuntime.open(bundle, compiled: compiled)
            let got = try await answer(network, call(step: 0))
            XCTAssertEqual(got.values[0], 9)
            XCTAssertEqual(StandInLog.shared.specialized.map(\.name), ["model.s1n.aimodelc"])
            let versions = await network.describe().versions
            XCTAssertEqual(versions, ["core_ai_architecture": "s1n", "compiled_ahead": "model.s1n.aimodelc"])
        }
    }

    func testTheWholeRunWritesAReport() async throws {
        try await bundle(["steps_g0": function(1), "steps_g1": function(1)]).use { bundle in
            let report = bundle.folder.appendingPathComponent("report", isDirectory: true)
            let outcome = try await Sampling.run(bundle.folder, target: "golden", report: report) { bundle, _ in
                try await CoreAIRuntime.open(bundle)
            }
            XCTAssertEqual(outcome.samples.count, 2)
            let bytes = Array(try Data(contentsOf: report.appendingPathComponent(Report.jsonName)))
            let json = try JSONReader.read(bytes, name: "report").asObject("report")
            let versions = try json.required("versions", "report").asObject("versions")
            XCTAssertEqual(versions["core_ai_architecture"], .string("s1n"))
            XCTAssertNotNil(versions["system"])
        }
    }
}
