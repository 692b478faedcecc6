import DQSampler
import XCTest

/// JSON is read strictly, and what is written reads back.
final class JSONTests: XCTestCase {
    private func read(_ text: String) throws -> JSONValue { try JSONReader.read(Array(text.utf8), name: "text") }

    func testKindsAreKeptApart() throws {
        let value = try read(#" [null, true, 1, 1.0, -0, 1e2, "a\n\u00e9\ud83d\ude00", {}, []] "#)
        XCTAssertEqual(
            value,
            .array([
                .null, .bool(true), .integer(1), .number(1), .integer(0), .number(100), .string("a\né😀"), .object([:]), .array([]),
            ]))
    }

    func testWhatIsNoJSON() {
        let wrong = [
            "NaN", "Infinity", "-", "01", "1.", ".5", "1e", "+1", "1e999", "tru", "\"\\u12\"", "\"\\ud800\"", "\"\\udc00\"", "\"\t\"",
            "[1,]", "{\"a\":1,}", "{\"a\" 1}", "{1:2}", "{\"a\":1,\"a\":2}", "'a'", "[1 2]", "\"", "nulll", "",
        ]
        for text in wrong { XCTAssertThrowsError(try read(text), text) }
        XCTAssertThrowsError(try JSONReader.read([0x22, 0xFF, 0x22], name: "text"), "not UTF-8")
    }

    func testDepthHasALimit() throws {
        func nested(_ levels: Int) -> String { String(repeating: "[", count: levels) + String(repeating: "]", count: levels) }
        XCTAssertNoThrow(try read(nested(JSONReader.deepest)))
        assertRefused("nested deeper") { _ = try read(nested(JSONReader.deepest + 1)) }
    }

    func testRoundTrip() throws {
        let object: JSONObject = [
            "z": .number(0.1), "a": .array([.integer(Int.max), .null, .number(1e-300)]), "text": .string("\"\\\u{1}\n/é"),
            "empty": .object([:]),
        ]
        let text = JSONValue.object(object).text
        XCTAssertEqual(try read(text), .object(object))
        XCTAssertLessThan(text.range(of: "\"z\"")?.lowerBound ?? text.endIndex, text.range(of: "\"a\"")?.lowerBound ?? text.startIndex)
    }

    func testWhatIsNotFiniteIsNull() {
        for value in [Double.nan, .infinity, -.infinity] {
            XCTAssertEqual(JSONValue.figure(value), .null)
            XCTAssertEqual(JSONValue.number(value).text, "null\n")
        }
        XCTAssertEqual(JSONValue.figure(1.5), .number(1.5))
    }

    func testTypesAreNamedInErrors() {
        assertRefused("guidance must be a number, got true") { _ = try JSONValue.bool(true).asDouble("guidance") }
        assertRefused("step must be an integer, got 1.5") { _ = try JSONValue.number(1.5).asInt("step") }
    }
}
