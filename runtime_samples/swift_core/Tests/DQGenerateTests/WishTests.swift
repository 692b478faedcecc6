import DQGenerate
import DQSampler
import XCTest

/// Which prompts are refused, by the texts of `dq-toolchain generate`.
final class WishTests: XCTestCase {
    private func refusal(_ text: String) -> String? {
        do { try Wish.check(text) } catch { return "\(error)" }
        return nil
    }

    func testWeightsAndNamesAreRefused() {
        let notation = [
            ("a (red:1.3) ball", "(red:1.3)"), ("a ((very red) big) ball", "(("), ("a [[red]] ball", "[["), ("a <my-cat> on grass", "<my-cat>"),
            ("<lora:name:1>", "<lora:name:1>"), ("the <|endoftext|>", "<|endoftext|>"), ("(a: -.5 )", "(a: -.5 )"),
        ]
        for (text, found) in notation {
            XCTAssertEqual(
                refusal(text),
                "prompt '\(text)': weights and embeddings such as '\(found)' are not supported, the text encoder would read them as "
                    + "letters; write plain words")
        }
    }

    func testOtherBracketsAreText() {
        for text in ["a cat (sitting), 3:2", "a <3 b, c > d", "f(x) = [] <>", "time: 10:30 (noon)", "[red]", ""] {
            XCTAssertNil(refusal(text), text)
        }
    }

    func testTextIsQuotedAsPythonDoes() {
        XCTAssertEqual(refusal("it's\n((\u{200B}")?.hasPrefix(#"prompt "it's\n((\u200b": weights"#), true)
        XCTAssertEqual(refusal(#"it's "so" (("#)?.hasPrefix(#"prompt 'it\'s "so" ((': weights"#), true)
    }

    func testLongTexts() {
        XCTAssertNil(refusal(String(repeating: "a ", count: 5000)))
        XCTAssertEqual(refusal(String(repeating: "é", count: 10001)), "a prompt has 10,001 characters, allowed are 10,000; shorten it")
    }

    func testWhatTheModelTakes() {
        let wrong: [(Wish, Bool, Bool, String)] = [
            (Wish(prompt: nil), true, false, "--prompt is missing: this model draws what a text says"),
            (Wish(prompt: "a"), false, true, "--prompt: this model takes no text; give --label"),
            (Wish(prompt: "a"), false, false, "--prompt: this model takes no text; leave it out"),
            (Wish(prompt: nil), false, true, "--label: this model draws a class, got None"),
            (Wish(prompt: "a", label: 3), true, false, "--label: this model takes no class"),
            (Wish(prompt: "a", seed: 1 << 63), true, false, "--seed must be 0-9223372036854775807, got 9223372036854775808"),
        ]
        for (wish, text, label, said) in wrong {
            XCTAssertThrowsError(try wish.check(takesText: text, takesLabel: label)) { XCTAssert("\($0)".hasPrefix(said), "\($0)") }
        }
        XCTAssertNoThrow(try Wish(prompt: "").check(takesText: true, takesLabel: false))
        XCTAssertNoThrow(try Wish(prompt: nil, label: 0).check(takesText: false, takesLabel: true))
    }
}
