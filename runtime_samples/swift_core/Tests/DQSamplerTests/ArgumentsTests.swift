import DQSampler
import XCTest

final class ArgumentsTests: XCTestCase {
    private let needed = ["--bundle", "b", "--report", "r"]
    private let options = [Arguments.Option("--units", allowed: ["cpu", "all"])]

    func testDefaults() throws {
        let arguments = try Arguments(needed)
        XCTAssertEqual(arguments.bundle.lastPathComponent, "b")
        XCTAssertEqual(arguments.report.lastPathComponent, "r")
        XCTAssertNil(arguments.seeds)
        XCTAssertTrue(arguments.teacherForced)
        XCTAssertEqual(arguments.own, [:])
    }

    func testEverything() throws {
        let given = ["--seeds", "2", "--steps", "8", "--guidance", "7.5", "--teacher-forced", "off", "--units", "cpu"]
        let arguments = try Arguments(needed + given, options: options)
        XCTAssertEqual(arguments.seeds, 2)
        XCTAssertEqual(arguments.steps, 8)
        XCTAssertEqual(arguments.guidance, 7.5)
        XCTAssertFalse(arguments.teacherForced)
        XCTAssertEqual(arguments.own, ["--units": "cpu"])
    }

    func testRefusals() {
        let wrong: [([String], String)] = [
            ([], "--bundle is missing"), (["--bundle", "b"], "--report is missing"), (["--bundle"], "--bundle needs a value"),
            (["--bundle", "", "--report", "r"], "--bundle is missing"), (needed + ["--seed", "1"], "got '--seed'"),
            (needed + ["--seeds", "0"], "--seeds got '0'"), (needed + ["--seeds", "x"], "--seeds got 'x'"),
            (needed + ["--steps", "0"], "--steps got '0'"), (needed + ["--guidance", "nan"], "--guidance got 'nan'"),
            (needed + ["--teacher-forced", "maybe"], "allowed are on and off"), (needed + ["--bundle", "c"], "twice"),
            (needed + ["--units", "gpu"], "allowed are cpu, all"),
        ]
        for (arguments, text) in wrong {
            assertRefused(text) { _ = try Arguments(arguments, options: options) }
        }
        assertRefused("--replay is missing") { _ = try Arguments(needed, options: [.init("--replay", required: true)]) }
    }
}
