import DQSampler
import DQTesting
import Foundation
import XCTest

/// The network that every runtime with functions is.
final class FunctionNetworkTests: XCTestCase {
    /// Keeps what each function was given, by its name.
    private actor Log {
        private(set) var calls: [(name: String, inputs: [String: AnyTensor])] = []

        func add(_ name: String, _ inputs: [String: AnyTensor]) { calls.append((name, inputs)) }
    }

    private struct Function: ProgramFunction {
        let name: String
        let log: Log

        func execute(_ inputs: [String: AnyTensor]) async throws -> Tensor {
            await log.add(name, inputs)
            return Tensor(zeros: [1])
        }
    }

    private func network(_ bundle: ExportedBundle, _ log: Log) throws -> FunctionNetwork<Function> {
        try FunctionNetwork(
            bundle, runtime: .init(name: "made up", computeUnit: "none", versions: ["compiler": "7"]), keepFunctions: true,
            compileMilliseconds: 1000
        ) { Function(name: $0, log: log) }
    }

    private func call(_ bundle: ExportedBundle, step: Int) -> NetworkCall {
        NetworkCall(
            step: step, sample: Tensor(zeros: bundle.output.shape), timestep: 5,
            conditioning: ["class_labels": .integer(IntegerTensor(shape: [1], values: [3]))])
    }

    func testAFunctionIsGivenAllInputsOfTheBundle() async throws {
        let bundle = try Golden.bundle("ddim-guided"), log = Log(), network = try network(bundle, log)
        for step in [0, 2] {
            try await network.prepare(step: step)
            _ = try await network.execute(call(bundle, step: step))
        }
        let calls = await log.calls.filter { $0.inputs["class_labels"] == .integer(IntegerTensor(shape: [1], values: [3])) }
        XCTAssertEqual(calls.map { Set($0.inputs.keys) }, [Set(bundle.inputs.map(\.name)), Set(bundle.inputs.map(\.name))])
        let ranges = try XCTUnwrap(bundle.ranges())
        XCTAssertEqual(calls.map { $0.inputs["ranges"] }, [.float(ranges[0]), .float(ranges[1])])
    }

    func testStepVectorsStandInThePlaceOfTheTimestep() async throws {
        let bundle = try Golden.bundle("step-vectors"), log = Log(), network = try network(bundle, log)
        let rows = try XCTUnwrap(bundle.stepVectors())
        try await network.prepare(step: 3)
        _ = try await network.execute(
            NetworkCall(
                step: 3, sample: Tensor(zeros: bundle.output.shape), timestep: 5, stepVectors: rows[3],
                conditioning: ["class_labels": .integer(IntegerTensor(shape: [1], values: [3]))]))
        let calls = await log.calls, last = try XCTUnwrap(calls.last)
        XCTAssertEqual(Set(last.inputs.keys), Set(bundle.inputs.map(\.name)))
        XCTAssertEqual(last.inputs["step_vectors"], .float(rows[3]))
    }

    func testTheExecutionAfterALoadDividesByNoZero() async throws {
        let bundle = try Golden.bundle("ddim-guided"), log = Log(), network = try network(bundle, log)
        try await network.prepare(step: 4)
        let calls = await log.calls, first = try XCTUnwrap(calls.first)
        XCTAssertEqual(first.inputs["ranges"], .float(try XCTUnwrap(bundle.ranges())[0]))
        XCTAssertEqual(Set(first.inputs.keys), Set(bundle.inputs.map(\.name)))
    }

    func testAStepThatWasNotPreparedIsRefused() async throws {
        let bundle = try Golden.bundle("dpm-history"), network = try network(bundle, Log())
        do {
            _ = try await network.execute(call(bundle, step: 0))
            XCTFail("accepted")
        } catch let error as SampleError { XCTAssert(error.description.contains("not prepared"), "\(error)") }
    }

    func testWhatWasCompiledBeforeCounts() async throws {
        let bundle = try Golden.bundle("dpm-history"), network = try network(bundle, Log())
        try await network.prepare(step: 0)
        let runtime = await network.describe()
        XCTAssertEqual(runtime.compileMilliseconds, 1000)
        XCTAssertGreaterThan(runtime.loadMilliseconds ?? 0, 1000)
        XCTAssertEqual(runtime.versions, ["compiler": "7"])
    }
}
