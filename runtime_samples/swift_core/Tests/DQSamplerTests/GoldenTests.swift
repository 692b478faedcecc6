import DQSampler
import Foundation
import XCTest

/// Every golden case gives the report that the host's sampler gave.
final class GoldenTests: XCTestCase {
    func testFiguresAreThoseOfTheHost() async throws {
        for name in Golden.cases {
            try await withTemporaryFolder { folder in
                try await Golden.report(name, to: folder)
                let got = try Golden.json(folder), wanted = try Golden.json(Golden.expected(name))
                try compare(got["per_step"], wanted["per_step"], "\(name) per_step")
                let psnr = try (got: figures(got), wanted: figures(wanted))
                try compare(psnr.got, psnr.wanted, "\(name) psnr")
                XCTAssertEqual(got["bundle_sha256"], wanted["bundle_sha256"], name)
                XCTAssertEqual(got["target"], wanted["target"], name)
            }
        }
    }

    func testTensorsAreThoseOfTheHost() async throws {
        for name in Golden.cases {
            try await withTemporaryFolder { folder in
                try await Golden.report(name, to: folder)
                let got = try SafetensorsFile(folder.appendingPathComponent(Report.tensorsName))
                let wanted = try SafetensorsFile(Golden.expected(name).appendingPathComponent(Report.tensorsName))
                XCTAssertEqual(got.names, wanted.names)
                for tensor in wanted.names {
                    let (one, other) = (try got.floats(tensor), try wanted.floats(tensor))
                    XCTAssertEqual(one.shape, other.shape, "\(name) \(tensor)")
                    XCTAssert(relativeError(one, other) <= 1e-6 || agreesWhereFinite(one, other), "\(name) \(tensor)")
                }
            }
        }
    }

    func testFirstSeedsOnly() async throws {
        try await withTemporaryFolder { folder in
            try await Golden.report("euler-latents", to: folder, seeds: 2)
            let all = try SafetensorsFile(Golden.expected("euler-latents").appendingPathComponent(Report.tensorsName))
            let two = try SafetensorsFile(folder.appendingPathComponent(Report.tensorsName))
            XCTAssertEqual(two.shape(of: "latents"), [6, 2, 4, 6, 6])
            XCTAssertLessThanOrEqual(
                relativeError(try two.floats("latents", at: [5, 1]), try all.floats("latents", at: [5, 1])), 1e-6)
        }
    }

    func testWithoutTheSecondHalf() async throws {
        try await withTemporaryFolder { folder in
            try await Golden.report("ddim-guided", to: folder, teacherForced: false)
            let file = try SafetensorsFile(folder.appendingPathComponent(Report.tensorsName))
            XCTAssertEqual(file.names, ["latents"])
            try compare(
                try Golden.json(folder)["per_step"], try Golden.json(Golden.expected("ddim-guided"))["per_step"], "per_step")
        }
    }

    func testAnotherBundlesRecordingIsNoticed() async throws {
        let bundle = try Golden.bundle("ddim-noise"), reference = try Reference(bundle, seeds: nil)
        let network = try Golden.replay("dpm-history", bundle, reference, teacherForced: true)
        do {
            _ = try await Run(bundle: bundle, reference: reference, network: network).run()
            XCTFail("a foreign recording was accepted")
        } catch let error as SampleError {
            XCTAssert(error.description.contains("other inputs than recorded"), "\(error)")
        }
    }

    private func figures(_ report: JSONObject) throws -> JSONValue? { try report.required("final", "").asObject("final")["psnr"] }

    /// Both are trees of numbers and null.
    private func compare(_ got: JSONValue?, _ wanted: JSONValue?, _ place: String) throws {
        switch (got, wanted) {
        case (.array(let one), .array(let other)):
            XCTAssertEqual(one.count, other.count, place)
            for (index, pair) in zip(one, other).enumerated() { try compare(pair.0, pair.1, "\(place)[\(index)]") }
        case (.object(let one), .object(let other)):
            XCTAssertEqual(Set(one.keys), Set(other.keys), place)
            for key in other.keys { try compare(one[key], other[key], "\(place).\(key)") }
        case (.null, .null): break
        case (let one?, let other?):
            let (one, other) = (try one.asDouble(place), try other.asDouble(place))
            XCTAssert(agrees(one, other), "\(place): \(one) and \(other)")
        default: XCTFail("\(place): \(String(describing: got)) and \(String(describing: wanted))")
        }
    }

    /// For tensors with NaN or infinity, whose difference says nothing; what is finite must agree to 1e-6.
    private func agreesWhereFinite(_ one: Tensor, _ other: Tensor) -> Bool {
        let largest = Double(other.values.filter(\.isFinite).map(abs).max() ?? 0)
        return zip(one.values, other.values).allSatisfy {
            agrees(Double($0), Double($1)) || abs(Double($0) - Double($1)) <= 1e-6 * largest
        }
    }
}
