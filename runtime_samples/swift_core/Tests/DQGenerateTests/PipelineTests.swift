import DQGenerate
import DQSampler
import DQTesting
import Foundation
import XCTest

/// The first fault of a pipeline.json is named.
final class PipelineTests: XCTestCase {
    /// A copy of a bundle with an edited pipeline.json, whose hash is right.
    private func pipeline(_ old: String, _ new: String, of name: String = "two-encoders") throws -> Pipeline {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("dq-\(UUID().uuidString)", isDirectory: true)
        try FileManager.default.copyItem(at: goldenFolder.appendingPathComponent("generate/\(name)/bundle"), to: folder)
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appendingPathComponent("pipeline.json"), listed = folder.appendingPathComponent("bundle.json")
        let text = try String(contentsOf: file, encoding: .utf8), changed = text.replacingOccurrences(of: old, with: new)
        if old != new { XCTAssertNotEqual(changed, text, old) }
        try Data(changed.utf8).write(to: file)
        let bundle = try String(contentsOf: listed, encoding: .utf8)
        let hashes = (before: SHA256.of(Array(text.utf8)), now: SHA256.of(Array(changed.utf8)))
        try Data(bundle.replacingOccurrences(of: hashes.before, with: hashes.now).utf8).write(to: listed)
        return try Pipeline(ExportedBundle(folder, target: nil))
    }

    func testAWholeOne() throws {
        let whole = try pipeline("", "")
        XCTAssertEqual(whole.tokenizers.map(\.name), ["tokenizer", "tokenizer_2"])
        XCTAssertEqual(whole.encoders[1].outputs, ["hidden", "pooled"])
        XCTAssertEqual(whole.conditioning["encoder_hidden_states"], [["text_encoder.hidden", "text_encoder_2.hidden"]])
        XCTAssertEqual(whole.constants, "parts/constants.safetensors")
        XCTAssertEqual(whole.decoder?.height, 12)
        XCTAssert(whole.zerosWithoutNegative)
    }

    func testFaults() {
        let edits: [(String, String, String)] = [
            ("dq-toolchain/pipeline", "x", "must be dq-toolchain/pipeline, version 1"),
            (#""kind": "clip""#, #""kind": "bert""#, "tokenizers[0]: kind must be clip or t5, got 'bert'"),
            (#""length": 16"#, #""length": 2"#, "tokenizers[0]: length must be 3-4096, got 2"),
            (#""pad": 0"#, #""pad": -1"#, "tokenizers[1]: pad must be 0-2147483647, got -1"),
            (#""folder": "parts/tokenizer""#, #""folder": "../x""#, "names a place outside the bundle"),
            (#""folder": "parts/tokenizer""#, #""folder": "parts/x""#, "lists no 'parts/x/tokenizer.json'"),
            (#""name": "tokenizer_2""#, #""name": "tokenizer""#, "hold a name twice"),
            (#""name": "text_encoder_2""#, #""name": "text_encoder""#, "hold a name twice"),
            (#""name": "text_encoder""#, #""name": "decoder""#, "encoders[0]: name must not be 'decoder', which is another part's"),
            (#""name": "text_encoder""#, #""name": "vae_encoder""#, "encoders[0]: name must not be 'vae_encoder'"),
            (#""tokenizer": "tokenizer_2""#, #""tokenizer": "x""#, "tokenizer must be one of tokenizers, got 'x'"),
            (#""pooled""#, #""hidden""#, "outputs must be hidden and pooled, each once"),
            (#""mask": false"#, #""mask": 1"#, "mask must be true or false, got 1"),
            (#""text_embeds""#, #""labels""#, "conditioning.labels: the network takes no float32 input"),
            (#""text_encoder_2.pooled""#, #""text_encoder.pooled""#, "'text_encoder.pooled' is neither"),
            (#""parts/constants.safetensors""#, "null", "conditioning lacks 'time_ids', and there are no constants"),
            (#""channels": 3"#, #""channels": 2"#, "channels must be 1 or 3, got 2"),
            (#""width": 12"#, #""width": 0"#, "width must be 1-16384, got 0"),
        ]
        for (old, new, said) in edits {
            XCTAssertThrowsError(try pipeline(old, new), new) { XCTAssert("\($0)".contains(said), "\(new): \($0)") }
        }
    }
    func testFaultsOfImageToImage() throws {
        XCTAssertEqual(try pipeline("", "", of: "image").image?.starts[4]?.map(\.call), [0, 1, 2, 3])
        let edits: [(String, String, String)] = [
            (#""image_to_image": {"#, #""image_to_image": null, "x": {"#, "image_to_image must be an object, got null"),
            (#""parts/vae_encoder.bin""#, #""../x""#, "image_to_image: program names a place outside the bundle"),
            (#""parts/vae_encoder.bin""#, #""parts/x""#, "lists no 'parts/x'"),
            (#""deviation""#, #""spread""#, "outputs must be mean, or mean and deviation"),
            (#""up""#, #""even""#, "start_rounds must be up or down, got 'even'"),
            (#""4": ["#, #""five": ["#, "starts must be by step count, got 'five'"),
            (#""4": ["#, #""5": ["#, "starts[5] must hold one for each of 5 steps, got 4"),
            (#""call": 2"#, #""call": -1"#, "call must be 0-1000000, got -1"),
            (#""signal": 0.27892050079754205"#, #""signal": 1e39"#, "signal and noise must be finite in float32"),
            (#""noise": 0.9603141955812422"#, #""noise": true"#, "noise must be a number, got true"),
        ]
        for (old, new, said) in edits {
            XCTAssertThrowsError(try pipeline(old, new, of: "image"), new) { XCTAssert("\($0)".contains(said), "\(new): \($0)") }
        }
    }

    func testTheFirstStepIsThatOfDiffusers() {
        for (strength, steps, up, down) in [(1.0, 4, 0, 0), (0.6, 4, 2, 1), (0.8, 50, 10, 10), (0.29, 100, 72, 71), (0.01, 4, 4, 3)] {
            XCTAssertEqual(ImageToImage.firstStep(strength, steps: steps, roundsUp: true), up, "\(strength) of \(steps)")
            XCTAssertEqual(ImageToImage.firstStep(strength, steps: steps, roundsUp: false), down, "\(strength) of \(steps)")
        }
    }
}
