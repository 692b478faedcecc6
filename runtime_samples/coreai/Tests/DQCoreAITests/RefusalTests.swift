import CoreAI
import DQSampler
import DQTesting
import Foundation
import XCTest

@testable import DQCoreAI

/// What does not fit together is one line that says what helps, and never another unit in silence.
final class RefusalTests: XCTestCase {
    private static let shape = [1, 3, 6, 6]

    private func function(_ change: (inout StandInFunction) -> Void = { _ in }) -> StandInFunction {
        var function = StandInFunction(
            inputs: [
                .init("sample", Self.shape, .float32), .init("timestep", [1], .float32), .init("class_labels", [1], .int32),
            ], output: .init("output", Self.shape, .float32), factor: 1)
        change(&function)
        return function
    }

    /// The text with which one execution of the first step is refused.
    private func refusal(
        _ program: StandInProgram, unit: ComputeUnit = .neuralEngine, compiled: URL? = nil, label: Int64 = 0
    ) async throws -> String {
        var text = "accepted"
        try await StandInBundle("dpm-history", ["model.aimodel": program], methods: ["main"]).use { bundle in
            do {
                let network = try await CoreAIRuntime.open(bundle, unit: unit, compiled: compiled)
                try await network.prepare(step: 0)
                let conditioning = ["class_labels": AnyTensor.integer(IntegerTensor(shape: [1], values: [label]))]
                _ = try await network.execute(
                    NetworkCall(step: 0, sample: Tensor(zeros: Self.shape), timestep: 0, conditioning: conditioning))
            } catch let error as SampleError { text = error.description }
        }
        XCTAssertFalse(text.contains("\n"))
        return text
    }

    private func assertRefused(
        _ parts: String..., by text: String, file: StaticString = #filePath, line: UInt = #line
    ) {
        for part in parts { XCTAssert(text.contains(part), "'\(text)' lacks '\(part)'", file: file, line: line) }
    }

    func testARefusedNeuralEngineIsNotReplacedInSilence() async throws {
        StandInLog.shared.clear()
        let text = try await refusal(StandInProgram(["main": function()], neuralEngine: false))
        assertRefused("Neural Engine preferred", "compilation for the Neural Engine failed", "--compute-unit default", by: text)
        XCTAssertEqual(StandInLog.shared.specialized.count, 1, "tried once, and nothing else")
        let other = try await refusal(StandInProgram(["main": function()], neuralEngine: false), unit: .default)
        XCTAssertEqual(other, "accepted")
    }

    func testAUnitThatTheDeviceLacks() async throws {
        let text = try await refusal(StandInProgram(["main": function()]), unit: .gpu)
        assertRefused("--compute-unit gpu", "no such unit", "--compute-unit default", by: text)
    }

    func testAProgramThatDoesNotFitTheBundle() async throws {
        let wrong: [(StandInProgram, String)] = [
            (StandInProgram(["other": function()]), "no function 'main', only other"),
            (StandInProgram(["main": function { $0.inputs.append(.init("pixels", [1], .float32)) }]), "an input 'pixels'"),
            (StandInProgram(["main": function { $0.inputs.removeLast() }]), "no input 'class_labels'"),
            (StandInProgram(["main": function { $0.inputs[0].image = true }]), "takes 'sample' as a picture"),
            (StandInProgram(["main": function { $0.inputs[0].shape = [1, 3, 8, 8] }]), "'sample' of shape [1, 3, 8, 8]"),
            (StandInProgram(["main": function { $0.inputs[0].shape = [1, 3, -1, 6] }]), "'sample' of shape [1, 3, -1, 6]"),
            (StandInProgram(["main": function { $0.output.name = "noise" }]), "no output 'output'"),
            (StandInProgram(["main": function { $0.inputs[1].scalarType = .bfloat16 }]), "'timestep' as bfloat16"),
            (StandInProgram(["main": function { $0.inputs[2].scalarType = .float32 }]), "'class_labels' as float32"),
            (StandInProgram(["main": function { $0.output.scalarType = .bfloat16 }]), "'output' as bfloat16"),
        ]
        for (program, part) in wrong {
            let text = try await refusal(program)
            assertRefused(part, "export again", by: text)
        }
    }

    func testWhatCoreAIRefusesLater() async throws {
        let loading = try await refusal(StandInProgram(["main": function { $0.loads = false }]))
        assertRefused("cannot load function 'main'", "not enough memory", "--compute-unit default", by: loading)
        let running = try await refusal(StandInProgram(["main": function { $0.executes = false }]), unit: .default)
        assertRefused("does not execute", "busy", "--compute-unit cpuOnly", by: running)
    }

    func testAnIntegerThatDoesNotFit() async throws {
        let text = try await refusal(StandInProgram(["main": function()]), label: 3_000_000_000)
        assertRefused("'class_labels' holds 3000000000", "int32", by: text)
    }

    func testOnlyAProgramCompiledAheadIsAccepted() async throws {
        let program = StandInProgram(["main": function()]), folder = FileManager.default.temporaryDirectory
        let own = try await refusal(program, compiled: folder.appendingPathComponent("model.aimodel"))
        assertRefused("--program got model.aimodel", ".aimodelc", by: own)
        let missing = try await refusal(program, compiled: folder.appendingPathComponent("none.h1.aimodelc"))
        assertRefused("there is no", "none.h1.aimodelc", by: missing)
        let broken = folder.appendingPathComponent("dq-\(UUID().uuidString).h1.aimodelc", isDirectory: true)
        try FileManager.default.createDirectory(at: broken, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: broken) }
        let text = try await refusal(program, compiled: broken)
        assertRefused("fits one architecture, this device is 's1n'", by: text)
    }
}
