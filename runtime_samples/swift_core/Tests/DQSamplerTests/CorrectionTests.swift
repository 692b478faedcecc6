import DQSampler
import Foundation
import XCTest

final class CorrectionTests: XCTestCase {
    private let good =
        #"{"input_shift": [[1, -1], [0, 10]], "output_scale": [[1, 1], [3, 0.5]], "output_shift": [[0, 0], [7, -7]]}"#

    private func correction(_ text: String) throws -> Correction {
        let place = "table.correction", json = try JSONReader.read(Array(text.utf8), name: "text").asObject(place)
        return try Correction(json, calls: 2, place: place)
    }

    func testBeforeAndAfter() throws {
        let read = try correction(good), x = Tensor(shape: [2, 1, 2], values: [1, 2, 3, 4])
        XCTAssertEqual(read.channels, 2)
        XCTAssertEqual(read.before(x, 0), Tensor(shape: [2, 1, 2], values: [2, 3, 2, 3]))
        XCTAssertEqual(read.before(x, 1).values, [1, 2, 13, 14])
        XCTAssertEqual(read.after(x, 0), x)
        XCTAssertEqual(read.after(x, 1).values, [10, 13, -5.5, -5])
    }

    func testNumbersAreRoundedToFloat32First() throws {
        let read = try correction(good.replacingOccurrences(of: "[[1, -1]", with: "[[0.1, -1]"))
        XCTAssertEqual(read.before(Tensor(shape: [2, 1], values: [0, 1]), 0).values, [Float(0.1), 0])
    }

    func testDamagedCorrections() {
        let edits: [(String, String, String)] = [
            (#", "output_shift": [[0, 0], [7, -7]]"#, "", "must have exactly the keys"),
            ("input_shift", "shift", "must have exactly the keys"),
            ("{", #"{"more": 1, "#, "must have exactly the keys"),
            ("[[1, -1], [0, 10]]", "[[1, -1]]", "table.correction.input_shift has 1 rows, there are 2"),
            ("[7, -7]", "[7, -7], [0, 0]", "table.correction.output_shift has 3 rows"),
            ("[7, -7]", "[7]", "as many numbers each, 1 or more, got [1, 2]"),
            ("[7, -7]", "7", "must be a list, got 7"),
            ("[7, -7]", "[true, 1]", "must be a number, got true"),
            ("[7, -7]", "[1e39, 1]", "not finite in float32"),
            ("[7, -7]", "[null, 1]", "must be a number, got null"),
        ]
        for (old, new, text) in edits {
            XCTAssert(good.contains(old), old)
            assertRefused(text) { _ = try correction(good.replacingOccurrences(of: old, with: new)) }
        }
        let empty = #"{"input_shift": [[], []], "output_scale": [[], []], "output_shift": [[], []]}"#
        assertRefused("1 or more, got [0]") { _ = try correction(empty) }
    }

    func testTheWarmUpIsCorrectedToo() async throws {
        actor Recorder: Network {
            private(set) var warm: [Tensor] = []

            func warmUp(_ call: NetworkCall) { warm.append(call.sample) }
            func execute(_ call: NetworkCall) -> Tensor { Tensor(zeros: call.sample.shape) }
            func describe() -> RuntimeDescription { RuntimeDescription(name: "recorder", version: "1", computeUnit: "none") }
        }
        let bundle = try Golden.bundle("ddim-corrected"), recorder = Recorder()
        let reference = try Reference(bundle, seeds: 1), start = try reference.start(0)
        _ = try await Run(bundle: bundle, reference: reference, network: recorder, teacherForced: false).run()
        let wanted = bundle.schedule.firstSteps.map { k in
            bundle.table.correction?.before(start.scaled(by: bundle.table.inputScale[k]), k).values
        }
        let warm = await recorder.warm
        XCTAssertEqual(warm.map(\.values), wanted)
        XCTAssertNotEqual(warm.first?.values, start.values)
    }
}
