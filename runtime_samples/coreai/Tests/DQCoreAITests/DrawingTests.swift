import CoreAI
import DQCoreAI
import DQGenerate
import DQSampler
import DQTesting
import Foundation
import XCTest

/// `generate` around Core AI, with the stand-in for it.
final class DrawingTests: XCTestCase {
    override func setUp() { StandInLog.shared.clear() }

    private static func program(_ inputs: [StandInPort], _ output: StandInPort, _ factor: Float) -> StandInProgram {
        StandInProgram(["main": StandInFunction(inputs: inputs, output: output, factor: factor)])
    }

    private static let latents = [1, 4, 6, 6]

    private static let bundle = StandInBundle(
        "generate/guided",
        [
            "model.aimodel": program(
                [.init("sample", latents, .float32), .init("timestep", [1], .float32), .init("encoder_hidden_states", [1, 16, 5], .float32)],
                .init("output", latents, .float32), 1),
            "parts/text_encoder.aimodel": program([.init("ids", [1, 16], .int32)], .init("hidden", [1, 16, 5], .float32), 1e-4),
            "parts/decoder.aimodel": program([.init("latents", latents, .float32)], .init("picture", [1, 3, 12, 12], .float32), 1e-4),
        ], methods: ["main"], target: "coreai", pipelineEdits: [".bin": ".aimodel"])

    func testOneProgramAfterTheOther() async throws {
        try await Self.bundle.use { bundle in
            let drawing = try Drawing(bundle, programs: CoreAIPrograms(unit: .cpuOnly), lowMemory: true)
            let outcome = try await drawing.draw(Wish(prompt: "a cat", negativePrompt: "dog", seed: 7))
            let values = (0..<432).map { 1e-4 * outcome.latents.values[$0 % outcome.latents.values.count] }
            XCTAssertEqual(outcome.picture, try Picture(Tensor(shape: [1, 3, 12, 12], values: values)))
            XCTAssertEqual(StandInLog.shared.specialized.map(\.name), ["text_encoder.aimodel", "model.aimodel", "decoder.aimodel"])
            XCTAssertEqual(StandInLog.shared.specialized.map(\.options), [.cpuOnly, .cpuOnly, .cpuOnly])
        }
    }

    func testAPictureIsBegunWith() async throws {
        let program = StandInBundle(
            "generate/image-noise-in-each-step",
            [
                "model.aimodel": Self.program(
                    [
                        .init("sample", Self.latents, .float32), .init("timestep", [1], .float32),
                        .init("encoder_hidden_states", [1, 16, 5], .float32),
                    ], .init("output", Self.latents, .float32), 1),
                "parts/text_encoder.aimodel": Self.program([.init("ids", [1, 16], .int32)], .init("hidden", [1, 16, 5], .float32), 1e-4),
                "parts/vae_encoder.aimodel": Self.program([.init("picture", [1, 3, 12, 12], .float32)], .init("mean", Self.latents, .float32), 1),
                "parts/decoder.aimodel": Self.program([.init("latents", Self.latents, .float32)], .init("picture", [1, 3, 12, 12], .float32), 1e-4),
            ], methods: ["main"], target: "coreai", pipelineEdits: [".bin": ".aimodel"])
        try await program.use { bundle in
            let drawing = try Drawing(bundle, programs: CoreAIPrograms(unit: .cpuOnly), lowMemory: true)
            let picture = Picture(channels: 1, height: 12, width: 12, pixels: [UInt8](repeating: 200, count: 144))
            let outcome = try await drawing.draw(Wish(prompt: "a cat", seed: 7, image: picture, strength: 0.6))
            XCTAssertEqual([outcome.step, outcome.steps], [1, 4])
            XCTAssertEqual(
                StandInLog.shared.specialized.map(\.name),
                ["text_encoder.aimodel", "vae_encoder.aimodel", "model.aimodel", "decoder.aimodel"])
        }
    }

    func testAProgramOfAnotherShapeIsRefused() async throws {
        try await Self.bundle.use { bundle in
            let part = PartProgram(
                name: "text_encoder", program: bundle.folder.appendingPathComponent("parts/text_encoder.aimodel"),
                inputs: [.init(name: "ids", kind: .int64, shape: [1, 77])], outputs: ["hidden"])
            do {
                _ = try await CoreAIPrograms(unit: .default).open(part)
                XCTFail("accepted")
            } catch let error as SampleError { XCTAssert("\(error)".contains("wants 'ids' of shape [1, 16]"), "\(error)") }
        }
    }
}
