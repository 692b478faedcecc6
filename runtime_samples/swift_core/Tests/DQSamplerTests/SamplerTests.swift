import DQSampler
import Foundation
import XCTest

final class SamplerTests: XCTestCase {
    private func numbers(_ values: [Double]) -> JSONValue { .array(values.map(JSONValue.number)) }

    private func table(
        a: [[Double]] = [[1, 0], [2, 3]], b: [[Double]] = [[0.5, 0], [0, -1]], c: [Double] = [0, 4]
    ) throws -> SamplerTable {
        try SamplerTable(
            [
                "timesteps": numbers([9, 0]), "input_scale": numbers([1, 1]), "a": .array(a.map(numbers)),
                "b": .array(b.map(numbers)), "c": numbers(c),
            ], place: "table")
    }

    func testTheRecurrence() throws {
        let table = try table(), x = [Tensor(shape: [1], values: [1]), Tensor(shape: [1], values: [10])]
        let f = [Tensor(shape: [1], values: [100]), Tensor(shape: [1], values: [1000])], noise = Tensor(shape: [1], values: [0.25])
        XCTAssertEqual(table.advance(0, latents: [x[0]], outputs: [f[0]], noise: nil).values, [51])
        XCTAssertEqual(table.advance(1, latents: x, outputs: f, noise: noise).values, [-76], "20 + 3 - 100 + 1")
        XCTAssertTrue(table.addsNoise)
        XCTAssertFalse(table.addsNoise(at: 0))
    }

    func testTermsOfZeroAreLeftOut() throws {
        let infinite = [Tensor(shape: [1], values: [.infinity])]
        let table = try table(a: [[0, 0], [0, 0]])
        let next = table.advance(0, latents: infinite, outputs: [Tensor(shape: [1], values: [2])], noise: nil)
        XCTAssertEqual(next.values, [1], "0 times infinity would be NaN")
    }

    func testDamagedTables() {
        assertRefused("table.a[0] reaches before the start") { _ = try table(a: [[1, 1], [1, 1]]) }
        assertRefused("table.c has 1 rows, there are 2") { _ = try table(c: [0]) }
        assertRefused("table has no key 'timesteps'") { _ = try SamplerTable([:], place: "table") }
    }

    func testScheduleOfGroups() throws {
        let schedule = try StepSchedule(stepGroups: [[0, 1], [2]], methods: ["g0", "g1"], calls: 3, place: "bundle")
        XCTAssertEqual((0..<3).map(schedule.method), ["g0", "g0", "g1"])
        XCTAssertEqual((0..<3).map(schedule.methodAfter), ["g1", "g1", "g0"])
        XCTAssertEqual(schedule.firstSteps, [0, 2])
        let single = try StepSchedule(stepGroups: [[0], [1, 2]], methods: ["main"], calls: 3, place: "bundle")
        XCTAssertEqual(single.firstSteps, [0])
        XCTAssertNil(single.methodAfter(1))
        XCTAssertEqual(single.groupOfStep, [0, 1, 1])
    }

    func testDamagedSchedules() {
        func schedule(_ groups: [[Int]], _ methods: [String] = ["main"]) throws {
            _ = try StepSchedule(stepGroups: groups, methods: methods, calls: 3, place: "bundle")
        }
        assertRefused("1 of 3 steps are in no group") { try schedule([[0], [1]]) }
        assertRefused("step 2 must be") { try schedule([[0], [2]]) }
        assertRefused("step 1 must be") { try schedule([[1, 0], [2]]) }
        assertRefused("step group 1 is empty") { try schedule([[0], [], [1, 2]]) }
        assertRefused("step 1 must be") { try schedule([[0, 1], [1, 2]]) }
        assertRefused("step 3 must be") { try schedule([[0, 1, 2, 3]]) }
        assertRefused("step -1 must be") { try schedule([[-1, 0, 1, 2]]) }
        assertRefused("2 methods for 1 groups") { try schedule([[0, 1, 2]], ["a", "b"]) }
    }
}
