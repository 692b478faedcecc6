import DQGenerate
import DQSampler
import DQTesting
import Foundation
import XCTest

/// The same seed draws the same noise as torch, bit for bit.
final class NoiseTests: XCTestCase {
    func testGoldenVectors() throws {
        let bytes = Array(try Data(contentsOf: goldenFolder.appendingPathComponent("noise.json")))
        let cases = try JSONReader.read(bytes, name: "noise.json").asObject("").required("cases", "").asArray("")
        XCTAssertGreaterThanOrEqual(cases.count, 8)
        for row in cases {
            let object = try row.asObject(""), text = try object.required("seed", "").asString("")
            var generator = TorchGenerator(seed: try XCTUnwrap(UInt64(text)))
            for draw in try object.required("draws", "").asArray("") {
                let wanted = try draw.asObject(""), count = try wanted.required("size", "").asInt("")
                let got = generator.normal(count: count)
                let first = try wanted.required("first", "").asDoubles("").map { Float($0) }
                XCTAssertEqual(Array(got.prefix(first.count)), first, "seed \(text), \(count) numbers")
                let raw = got.map(\.bitPattern.littleEndian).withUnsafeBytes { Array($0) }
                XCTAssertEqual(SHA256.of(raw), try wanted.required("sha256", "").asString(""), "seed \(text), \(count) numbers")
            }
        }
    }
}
