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
            (needed + ["--image", "x"], "got '--image'"), (needed + ["--negative-prompt", "<bad>"], "weights and embeddings such as '<bad>'"),
        ]
        for (words, said) in wrong {
            XCTAssertThrowsError(try GenerateArguments(words), said) { XCTAssert("\($0)".contains(said), "\($0)") }
        }
    }
}
