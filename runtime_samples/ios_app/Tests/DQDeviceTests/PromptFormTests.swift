import CoreML
import DQDevice
import DQGenerate
import DQSampler
import DQTesting
import Foundation
import XCTest

/// What the screen of prompts decides, and a picture drawn as the app draws it, with the stand-in for Core ML.
final class PromptFormTests: XCTestCase {
    func testWhatCanBeDrawn() throws {
        var form = PromptForm()
        XCTAssertFalse(form.canDraw)
        XCTAssertNil(form.problem)
        form.prompt = "a red house"
        XCTAssert(form.canDraw)
        XCTAssertEqual(try form.wish(), Wish(prompt: "a red house", seed: 7))
        form.seed = " "
        XCTAssertEqual(try form.wish().seed, 0)
        for (seed, allowed) in [("9223372036854775807", true), ("9223372036854775808", false), ("-1", false), ("x", false)] {
            form.seed = seed
            XCTAssertEqual(form.canDraw, allowed, seed)
            XCTAssertEqual(form.problem == nil, allowed, seed)
        }
        form.seed = "42"
        form.negativePrompt = "(blurry:1.2)"
        XCTAssertEqual(form.problem?.contains("weights and embeddings such as '(blurry:1.2)'"), true)
        XCTAssertFalse(form.canDraw)
    }

    func testTheNextSeedCanBeDrawn() throws {
        var form = PromptForm()
        form.prompt = "a red house"
        let next = [
            ("41", "42"), (" 41 ", "42"), ("", "1"), ("x", "1"), ("-1", "1"), ("9223372036854775806", "9223372036854775807"),
            ("9223372036854775807", "0"), ("9223372036854775808", "0"), ("18446744073709551615", "0"), ("18446744073709551616", "1"),
        ]
        for (seed, wanted) in next {
            form.seed = seed
            form.nextSeed()
            XCTAssertEqual(form.seed, wanted, seed)
            XCTAssert(form.canDraw, seed)
        }
    }

    /// A size that no picture has would end the app when a photo is scaled to it.
    func testABundleWithADamagedSizeTakesNoPhoto() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("dq-\(UUID().uuidString)", isDirectory: true)
        let bundle = folder.appendingPathComponent("bundle", isDirectory: true)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try FileManager.default.copyItem(at: goldenFolder.appendingPathComponent("generate/image/bundle"), to: bundle)
        for (height, width, isThere) in [(16384, 1, true), (0, 12, false), (12, -1, false), (16385, 12, false), (12, Int.max, false)] {
            let text = #"{"image_to_image": {"height": \#(height), "width": \#(width)}}"#
            try Data(text.utf8).write(to: bundle.appendingPathComponent("pipeline.json"))
            XCTAssertEqual(DeviceBundle.all(in: folder).first?.imageSize != nil, isThere, text)
        }
    }

    func testAPhotoIsOfTheBundlesSize() throws {
        let folder = goldenFolder.appendingPathComponent("generate"), bundles = DeviceBundle.all(in: folder.appendingPathComponent("image"))
        XCTAssertEqual([bundles.first?.imageSize?.height, bundles.first?.imageSize?.width], [12, 12])
        XCTAssertNil(DeviceBundle.all(in: folder.appendingPathComponent("guided")).first?.imageSize)
        var form = PromptForm()
        form.prompt = "a red house"
        XCTAssert(form.fits(nil))
        form.image = Picture(channels: 1, height: 12, width: 12, pixels: [UInt8](repeating: 9, count: 144))
        XCTAssert(form.fits(bundles.first?.imageSize))
        XCTAssertFalse(form.fits(nil))
        form.strength = 0.6
        XCTAssertEqual(try form.wish(), Wish(prompt: "a red house", seed: 7, image: form.image, strength: 0.6))
        form.strength = 0
        XCTAssertFalse(form.canDraw)
    }

    func testProgressOnlyGoesForward() {
        let order: [Drawing.Progress] = [.reading, .step(1, of: 4, secondsLeft: 3), .step(4, of: 4, secondsLeft: 0), .decoding]
        for (first, second) in zip(order, order.dropFirst()) {
            XCTAssert(second.isFurther(than: first))
            XCTAssertFalse(first.isFurther(than: second))
            XCTAssertGreaterThanOrEqual(second.share, first.share)
        }
        XCTAssertEqual(order[1].text, "Step 1 of 4, 3 s left")
    }

    func testAPictureIsDrawnAndWritten() async throws {
        let function = { (inputs: [String], output: String, shape: [Int]?) in
            ["main": CoreML.StandInFunction(inputs: inputs, output: output, factor: 1e-4, shape: shape)]
        }
        let made = StandInBundle(
            "generate/guided",
            [
                "model.mlpackage": function(["sample", "timestep", "encoder_hidden_states"], "output", nil),
                "parts/text_encoder.mlpackage": function(["ids"], "hidden", [1, 16, 5]),
                "parts/decoder.mlpackage": function(["latents"], "picture", [1, 3, 12, 12]),
            ], methods: ["main"], target: "coreml", pipelineEdits: [".bin": ".mlpackage"])
        try await made.use { bundle in
            XCTAssertEqual(DeviceBundle.all(in: bundle.folder.deletingLastPathComponent()).first { $0.folder.path == bundle.folder.path }?.draws, true)
            let file = bundle.folder.appendingPathComponent("pictures/one.png"), runtime = DeviceRuntime.coreml
            let drawn = try await DrawnPicture.draw(
                Wish(prompt: "red ball on the grass " + String(repeating: "of the cat ", count: 9)), folder: bundle.folder, runtime: runtime,
                unit: runtime.units[0], lowMemory: true, file: file
            ) { _ in }
            XCTAssertEqual(drawn.file, file)
            XCTAssertEqual(Array(try Data(contentsOf: file).prefix(4)), [0x89, 0x50, 0x4E, 0x47])
            XCTAssertEqual(drawn.warnings.count, 1)
            XCTAssert(drawn.warnings[0].contains("is too long for tokenizer"), drawn.warnings[0])
        }
    }
}
