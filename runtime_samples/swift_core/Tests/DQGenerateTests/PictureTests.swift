import DQGenerate
import DQSampler
import DQTesting
import Foundation
import XCTest

final class PictureTests: XCTestCase {
    func testPixelsAreClampedAndRoundedToTheNearest() throws {
        let decoded = Tensor(shape: [1, 3, 1, 2], values: [-2, 2, 0, -1, 1, 0.5])
        let picture = try Picture(decoded)
        XCTAssertEqual(picture.pixels, [0, 128, 255, 255, 0, 191])  // 127.5 goes to the even one
        XCTAssertThrowsError(try Picture(Tensor(zeros: [1, 4, 2, 2])))
        XCTAssertThrowsError(try Picture(Tensor(shape: [1, 1, 1, 1], values: [.nan])))
    }

    func testAFileIsAPNG() throws {
        let picture = try Picture(Tensor(shape: [1, 1, 200, 400], values: [Float](repeating: 0.25, count: 80_000)))
        let bytes = Array(try picture.png())
        XCTAssertEqual(Array(bytes.prefix(8)), [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A])
        XCTAssertEqual(Array(bytes[16..<24]), [0, 0, 1, 0x90, 0, 0, 0, 200])
    }

    func testAFileIsReadAsItWasWritten() throws {
        try withFile { file in
            for channels in [1, 3] {
                let picture = Picture(channels: channels, height: 3, width: 40, pixels: (0..<120 * channels).map { UInt8($0 * 7 % 256) })
                try picture.png().write(to: file)
                let read = try Picture(png: file, height: 3, width: 40)
                XCTAssertEqual(read.tensor, picture.tensor)
                let wrong: [(Data, String)] = [
                    (Data("GIF89a".utf8), "is no PNG file"), (try picture.png().prefix(20), "is no PNG file"), (Data(), "is no PNG file"),
                    (edited(try picture.png(), at: 24, to: 16), "has 16 bits per channel, allowed are 8"),
                    (edited(try picture.png(), at: 16, to: 0x7F), "is 2130706472 x 3 pixels, the model takes 40 x 3; scale or crop it"),
                    (try picture.png().dropLast(30), "cannot be read"), (edited(try picture.png(), at: 60, to: 1), "cannot be read"),
                ]
                for (bytes, said) in wrong {
                    try bytes.write(to: file)
                    XCTAssertThrowsError(try Picture(png: file, height: 3, width: 40), said) { XCTAssert("\($0)".contains(said), "\($0)") }
                }
            }
            try FileManager.default.removeItem(at: file)
            XCTAssertThrowsError(try Picture(png: file, height: 3, width: 40)) { XCTAssert("\($0)".contains("cannot read"), "\($0)") }
        }
    }

    private func edited(_ data: Data, at index: Int, to byte: UInt8) -> Data {
        var bytes = Array(data)
        bytes[index] = byte
        return Data(bytes)
    }

    private func withFile(_ body: (URL) throws -> Void) throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("dq-\(UUID().uuidString).png")
        defer { try? FileManager.default.removeItem(at: file) }
        try body(file)
    }

    func testPixelsBecomeNumbers() {
        let picture = Picture(channels: 3, height: 1, width: 2, pixels: [0, 255, 51, 1, 2, 3])
        XCTAssertEqual(picture.tensor.shape, [1, 3, 1, 2])
        XCTAssertEqual(picture.tensor.values, [0, 1, 255, 2, 51, 3].map { Float($0) / 255 * 2 - 1 })
        let gray = Picture(channels: 1, height: 1, width: 1, pixels: [102])
        XCTAssertEqual(gray.tensor.values, [Float](repeating: Float(102) / 255 * 2 - 1, count: 3))
    }

    func testAPhotoCoversThePicture() {
        let wide = Picture.covering((100, 50), with: (400, 400)), high = Picture.covering((64, 64), with: (128, 256))
        XCTAssertEqual([wide.x, wide.y, wide.width, wide.height], [0, -25, 100, 100])
        XCTAssertEqual([high.x, high.y, high.width, high.height], [0, -32, 64, 128])
    }

    func testArguments() throws {
        let needed = ["--bundle", "b", "--out", "o.png"]
        let given = try GenerateArguments(
            needed + ["--prompt", "a", "--low-memory", "--seed", "9223372036854775807", "--steps", "3", "--guidance", "2.5", "--label", "0"])
        XCTAssertEqual(given.wish, Wish(prompt: "a", label: 0, seed: 9_223_372_036_854_775_807))
        XCTAssert(given.lowMemory)
        XCTAssertEqual(given.steps, 3)
        XCTAssertEqual(given.guidance, 2.5)
        let wrong: [([String], String)] = [
            (["--bundle", "b"], "--out is missing"), (needed + ["--seed", "-1"], "--seed must be 0-9223372036854775807, got '-1'"),
            (needed + ["--seed", "9223372036854775808"], "--seed must be"), (["--bundle", "b", "--out", "o.jpg"], "--out must end with .png"),
            (needed + ["--low-memory", "--low-memory"], "twice"), (needed + ["--prompt"], "--prompt needs a value"),
            (needed + ["--mask", "x"], "got '--mask'"), (needed + ["--negative-prompt", "<bad>"], "weights and embeddings such as '<bad>'"),
            (needed + ["--strength", "0.5"], "--strength says how much of a picture is changed, and there is none; give --image"),
            (needed + ["--image", "x.png", "--strength", "0"], "--strength must be above 0 and at most 1, got 0; change it"),
            (needed + ["--image", "x.png", "--strength", "1.5"], "--strength must be above 0 and at most 1, got 1.5"),
            (needed + ["--image", "x.png", "--strength", "nan"], "--strength got 'nan', allowed are numbers within a million"),
        ]
        for (words, said) in wrong {
            XCTAssertThrowsError(try GenerateArguments(words), said) { XCTAssert("\($0)".contains(said), "\($0)") }
        }
    }
}
