import CoreML
import DQCoreML
import DQGenerate
import DQSampler
import DQTesting
import Foundation
import XCTest

/// `generate` around Core ML, with the stand-in for it: which parts are compiled and loaded when, what they are given, what they give.
final class DrawingTests: XCTestCase {
    override func setUp() { StandInLog.shared.clear() }

    private static let bundle = StandInBundle(
        "generate/guided",
        [
            "model.mlpackage": ["main": StandInFunction(inputs: ["sample", "timestep", "encoder_hidden_states"], output: "output", factor: 1)],
            "parts/text_encoder.mlpackage": ["main": StandInFunction(inputs: ["ids"], output: "hidden", factor: 1e-4, shape: [1, 16, 5])],
            "parts/decoder.mlpackage": ["main": StandInFunction(inputs: ["latents"], output: "picture", factor: 1e-4, shape: [1, 3, 12, 12])],
        ], methods: ["main"], target: "coreml", pipelineEdits: [".bin": ".mlpackage"])

    func testPartsAreLoadedOneAfterTheOther() async throws {
        for lowMemory in [true, false] {
            StandInLog.shared.clear()
            try await Self.bundle.use { bundle in
                let drawing = try Drawing(bundle, programs: CoreMLPrograms(units: .cpu), lowMemory: lowMemory)
                let outcome = try await drawing.draw(Wish(prompt: "a cat", seed: 7))
                let values = (0..<432).map { 1e-4 * outcome.latents.values[$0 % outcome.latents.values.count] }
                XCTAssertEqual(outcome.picture, try Picture(Tensor(shape: [1, 3, 12, 12], values: values)))
                XCTAssertEqual(StandInLog.shared.loaded, ["without a name", "without a name", "without a name"])
            }
            XCTAssertEqual(StandInLog.shared.compiled.count, 3)
            for folder in StandInLog.shared.compiled {
                for _ in 0..<200 where FileManager.default.fileExists(atPath: folder.path) { try await Task.sleep(for: .milliseconds(10)) }
                XCTAssertFalse(FileManager.default.fileExists(atPath: folder.path), "what was compiled goes with its part")
            }
        }
    }

    func testAPictureIsBegunWith() async throws {
        let latents = [1, 4, 6, 6]
        let program = StandInBundle(
            "generate/image-noise-in-each-step",
            [
                "model.mlpackage": ["main": StandInFunction(inputs: ["sample", "timestep", "encoder_hidden_states"], output: "output", factor: 1)],
                "parts/text_encoder.mlpackage": ["main": StandInFunction(inputs: ["ids"], output: "hidden", factor: 1e-4, shape: [1, 16, 5])],
                "parts/vae_encoder.mlpackage": ["main": StandInFunction(inputs: ["picture"], output: "mean", factor: 1, shape: latents)],
                "parts/decoder.mlpackage": ["main": StandInFunction(inputs: ["latents"], output: "picture", factor: 1e-4, shape: [1, 3, 12, 12])],
            ], methods: ["main"], target: "coreml", pipelineEdits: [".bin": ".mlpackage"])
        try await program.use { bundle in
            let drawing = try Drawing(bundle, programs: CoreMLPrograms(units: .cpu), lowMemory: true)
            let black = Picture(channels: 1, height: 12, width: 12, pixels: [UInt8](repeating: 0, count: 144))
            let white = Picture(channels: 1, height: 12, width: 12, pixels: [UInt8](repeating: 255, count: 144))
            let one = try await drawing.draw(Wish(prompt: "a cat", seed: 7, image: black, strength: 0.6))
            XCTAssertEqual([one.step, one.steps], [1, 4])
            XCTAssertEqual(StandInLog.shared.compiled.count, 4)
            let other = try await drawing.draw(Wish(prompt: "a cat", seed: 7, image: white, strength: 0.6))
            XCTAssertNotEqual(one.latents, other.latents)
            let noise = try await drawing.draw(Wish(prompt: "a cat", seed: 7))
            XCTAssertEqual(noise.step, 0)
            XCTAssertEqual(StandInLog.shared.compiled.count, 11, "without a picture its encoder is not loaded")
        }
    }

    func testThePromptDecidesThePicture() async throws {
        try await Self.bundle.use { bundle in
            let drawing = try Drawing(bundle, programs: CoreMLPrograms())
            let (one, other) = (try await drawing.draw(Wish(prompt: "a cat")), try await drawing.draw(Wish(prompt: "a dog")))
            let again = try await drawing.draw(Wish(prompt: "a cat"))
            XCTAssertNotEqual(one.latents, other.latents)
            XCTAssertEqual(one.latents, again.latents)
        }
    }

    func testAPartThatGivesSomethingElseIsRefused() async throws {
        let wrong = StandInFunction(inputs: ["ids"], output: "hidden", factor: 1, shape: [1, 15, 5])
        let program = StandInBundle(
            "generate/guided",
            ["model.mlpackage": ["main": wrong], "parts/text_encoder.mlpackage": ["main": wrong], "parts/decoder.mlpackage": ["main": wrong]],
            methods: ["main"], target: "coreml", pipelineEdits: [".bin": ".mlpackage"])
        try await program.use { bundle in
            do {
                _ = try await Drawing(bundle, programs: CoreMLPrograms(), lowMemory: true).draw(Wish(prompt: "a"))
                XCTFail("accepted")
            } catch let error as SampleError {
                XCTAssertEqual(
                    "\(error)", "text_encoder.hidden is [1, 15, 5], expected is (1, 16, width); export the bundle again")
            }
        }
    }
}
