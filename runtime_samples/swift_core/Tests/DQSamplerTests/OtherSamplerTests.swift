import DQSampler
import Foundation
import XCTest

/// Runs at another step count or guidance that the bundle holds.
final class OtherSamplerTests: XCTestCase {
    private let cases: [(name: String, steps: Int, guidance: Double?)] = [
        ("samplers/two-steps", 2, nil), ("samplers/eight-unguided", 8, 1), ("samplers/two-vectors", 2, nil),
    ]

    private func bundle(_ name: String) -> URL { Golden.folder.appendingPathComponent("\(name)/bundle", isDirectory: true) }

    func testTensorsAreThoseOfTheHost() async throws {
        for (name, steps, guidance) in cases {
            try await withTemporaryFolder { folder in
                _ = try await Sampling.run(
                    bundle(name), target: "golden", report: folder, steps: steps, guidance: guidance
                ) { try Golden.replay(name, $0, $1, teacherForced: true) }
                let got = try SafetensorsFile(folder.appendingPathComponent(Report.tensorsName))
                let wanted = try SafetensorsFile(Golden.expected(name).appendingPathComponent(Report.tensorsName))
                XCTAssertEqual(got.names, wanted.names)
                for tensor in wanted.names {
                    XCTAssertLessThanOrEqual(
                        relativeError(try got.floats(tensor), try wanted.floats(tensor)), 1e-6, "\(name) \(tensor)")
                }
                let (report, expected) = (try Golden.json(folder), try Golden.json(Golden.expected(name)))
                XCTAssertEqual(report["steps"], .integer(steps))
                XCTAssertEqual(try report["guidance"]?.asDouble(name), try expected["guidance"]?.asDouble(name))
            }
        }
    }

    func testTheLastStepGroupMayHaveNoStep() throws {
        let whole = try ExportedBundle(bundle("samplers/two-steps"), target: "golden")
        let two = try whole.at(steps: 2, guidance: nil)
        XCTAssertEqual(two.schedule.groupOfStep, [0, 1])
        XCTAssertEqual(try two.ranges()?.count, 3)
        XCTAssertEqual(try whole.at(steps: nil, guidance: nil).table, whole.table)
    }

    func testEveryStepCountHasRowsOfItsOwn() throws {
        let whole = try ExportedBundle(bundle("samplers/two-vectors"), target: "golden")
        let own = try XCTUnwrap(whole.stepVectors()), two = try XCTUnwrap(whole.at(steps: 2, guidance: nil).stepVectors())
        XCTAssertEqual(own.map(\.shape), [[Int]](repeating: [1, 7], count: 5))
        XCTAssertEqual(two.map(\.shape), [[Int]](repeating: [1, 7], count: 2))
        XCTAssertNotEqual(two[0], own[0])
        XCTAssertEqual(try whole.at(steps: nil, guidance: 1).stepVectors(), own)
    }

    func testWhatTheBundleDoesNotHoldIsNamed() throws {
        let whole = try ExportedBundle(bundle("samplers/two-steps"), target: "golden")
        assertRefused("got 3 steps, guidance 2.5", "the bundle holds 5 steps, guidance 2.5; 2 steps, guidance 2.5; 8 steps") {
            _ = try whole.at(steps: 3, guidance: nil)
        }
        assertRefused("got 5 steps, guidance 1.0") { _ = try whole.at(steps: nil, guidance: 1) }
    }
}
