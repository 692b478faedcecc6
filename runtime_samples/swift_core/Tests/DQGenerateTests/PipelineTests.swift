import DQGenerate
import DQSampler
import DQTesting
import Foundation
import XCTest

/// The first fault of a pipeline.json is named.
final class PipelineTests: XCTestCase {
    /// A copy of the bundle "two-encoders" with an edited pipeline.json, whose hash is right.
    private func pipeline(_ old: String, _ new: String) throws -> Pipeline {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("dq-\(UUID().uuidString)", isDirectory: true)
        try FileManager.default.copyItem(at: goldenFolder.appendingPathComponent("generate/two-encoders/bundle"), to: folder)
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
}
