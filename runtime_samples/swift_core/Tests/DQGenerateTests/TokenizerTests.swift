import DQGenerate
import DQSampler
import DQTesting
import Foundation
import XCTest

/// The tokens of CLIP and T5 are those of transformers, id by id.
final class TokenizerTests: XCTestCase {
    private let folder = goldenFolder.appendingPathComponent("tokens/clip", isDirectory: true)
    private let t5 = goldenFolder.appendingPathComponent("tokens/t5", isDirectory: true)

    func testGoldenTexts() throws { try compareGoldenTexts(folder, "clip") }

    func testGoldenTextsOfT5() throws { try compareGoldenTexts(t5, "t5") }

    private func compareGoldenTexts(_ folder: URL, _ kind: String) throws {
        let tokenizer = try Tokenizer(folder, kind: kind)
        let file = folder.appendingPathComponent("texts.json")
        let rows = try JSONReader.read(Array(try Data(contentsOf: file)), name: "texts.json").asArray("")
        XCTAssertGreaterThanOrEqual(rows.count, 2000)
        var different: [String] = []
        for row in rows {
            let pair = try row.asArray(""), text = try pair[0].asString("")
            let got = tokenizer.ids(text).map(String.init).joined(separator: " ")
            if got != (try pair[1].asString("")) { different.append(text) }
        }
        XCTAssertEqual(different, [])
    }

    func testAnEmptyTextHasNoTokens() throws {
        for tokenizer in [try Tokenizer(folder, kind: "clip"), try Tokenizer(t5, kind: "t5")] {
            for text in ["", " ", "\n\t"] { XCTAssertEqual(tokenizer.ids(text), []) }
        }
    }

    func testTheTextOfIdsIsAboutTheText() throws {
        let tokenizer = try Tokenizer(folder, kind: "clip")
        XCTAssertEqual(tokenizer.text(tokenizer.ids("A photo, it's naïve")), "a photo , it 's naïve")
    }

    func testWhatIsDamagedOrOfAnotherKindIsRefused() throws {
        let whole = try String(contentsOf: folder.appendingPathComponent("tokenizer.json"), encoding: .utf8)
        let edits: [(String, String, String)] = [
            (#""NFC""#, #""NFKC""#, "type must be 'NFC', got 'NFKC'"), (#"[\\p{N}]|"#, #"[\\p{N}]+|"#, "Regex must be"),
            (#""lstrip": false"#, #""lstrip": true"#, "has lstrip"), (#""!": 0,"#, #""!": -1,"#, "the id of '!' must be 0"),
            (#"["i", "n"]"#, #"["i", "\u0416"]"#, "lacks"), (#""unk_token": "<|endoftext|>""#, #""unk_token": "?!?!""#, "'?!?!'"),
            (#"{"version""#, #"{{"version""#, "no valid JSON"),
        ]
        for (old, new, said) in edits {
            let text = whole.replacingOccurrences(of: old, with: new)
            XCTAssertNotEqual(text, whole, old)
            try refused(text, kind: "clip", said)
        }
        try refused(whole, kind: "t5", "type must be 'WhitespaceSplit', got 'Split'")
        let other = try String(contentsOf: t5.appendingPathComponent("tokenizer.json"), encoding: .utf8)
        for (old, new, said) in [
            (#""WhitespaceSplit""#, #""Whitespace""#, "type must be 'WhitespaceSplit', got 'Whitespace'"),
            (#""unk_id": 2"#, #""unk_id": 99999"#, "unk_id must be a token of the vocabulary, got 99999"),
            (#""precompiled_charsmap": ""#, #""precompiled_charsmap": "?"#, "precompiled_charsmap is damaged"),
        ] {
            let text = other.replacingOccurrences(of: old, with: new)
            XCTAssertNotEqual(text, other, old)
            try refused(text, kind: "t5", said)
        }
        XCTAssertThrowsError(try Tokenizer(goldenFolder, kind: "clip"))
    }

    private func refused(_ text: String, kind: String, _ said: String) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("dq-\(UUID().uuidString)", isDirectory: true)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try Data(text.utf8).write(to: folder.appendingPathComponent("tokenizer.json"))
        XCTAssertThrowsError(try Tokenizer(folder, kind: kind)) { XCTAssert("\($0)".contains(said), "\($0)") }
    }
}
