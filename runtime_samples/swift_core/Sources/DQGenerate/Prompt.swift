import DQSampler
import Foundation

/// What a text encoder is given of a prompt.
struct EncodedPrompt: Sendable, Equatable {
    /// As many as the tokenizer's length.
    let ids: [Int64]
    /// 1 up to and with the end token, then 0.
    let mask: [Float]
    /// Tokens that did not fit.
    let leftOut: [Int64]

    init(_ text: String, _ part: Pipeline.TokenizerPart, _ tokenizer: Tokenizer) {
        let first = part.begin.map { [$0] } ?? [], all = tokenizer.ids(part.lower ? lowered(text) : text)
        let kept = all.prefix(part.length - 1 - first.count)
        let row = first + kept + [part.end], rest = part.length - row.count
        ids = row + [Int64](repeating: part.pad, count: rest)
        mask = [Float](repeating: 1, count: row.count) + [Float](repeating: 0, count: rest)
        leftOut = Array(all.dropFirst(kept.count))
    }
}

/// The prompts of a wish as ids, by tokenizer: with guidance the negative one, too.
struct PromptTokens: Sendable {
    let prompt: [String: EncodedPrompt]
    let negative: [String: EncodedPrompt]?

    /// - Parameter warn: is told what of a prompt is left out.
    /// - Throws: SampleError: a tokenizer cannot be read.
    init(_ wish: Wish, _ pipeline: Pipeline, folder: URL, isGuided: Bool, warn: (String) -> Void) throws {
        var prompt: [String: EncodedPrompt] = [:], negative: [String: EncodedPrompt] = [:]
        for part in pipeline.tokenizers {
            let tokenizer = try Tokenizer(folder.appendingPathComponent(part.folder, isDirectory: true), kind: part.kind)
            func encoded(_ text: String) -> EncodedPrompt {
                let found = EncodedPrompt(text, part, tokenizer), count = found.leftOut.count
                if count > 0 {
                    let words = tokenizer.text(found.leftOut)
                    warn("prompt \(quoted(text, 40)) is too long for \(part.name): its last \(count) tokens are left out: \(words)")
                }
                return found
            }
            prompt[part.name] = encoded(wish.prompt ?? "")
            if isGuided { negative[part.name] = encoded(wish.negativePrompt) }
        }
        (self.prompt, self.negative) = (prompt, isGuided ? negative : nil)
    }
}

/// As Python's lower() and strip() leave a text: a sigma that ends a word is the one that ends words.
private func lowered(_ text: String) -> String {
    let scalars = Array(text.unicodeScalars)
    var codes: CodePoints = []
    for (index, scalar) in scalars.enumerated() {
        let isFinal = scalar == "\u{3A3}" && isCased(scalars[..<index].reversed()) && !isCased(scalars[(index + 1)...])
        codes += isFinal ? [0x3C2] : scalar.value.lowerCase
    }
    let isBlank: (UInt32) -> Bool = { $0.isSpace || (0x1C...0x1F).contains($0) }
    let start = codes.firstIndex { !isBlank($0) } ?? codes.endIndex, end = codes.lastIndex { !isBlank($0) } ?? codes.startIndex
    return start < codes.endIndex ? String(codePoints: codes[start...end]) : ""
}

/// Whether the nearest character that no mark or sign within a word stands for is a letter with a case.
private func isCased(_ scalars: some Sequence<Unicode.Scalar>) -> Bool {
    scalars.first { !$0.properties.isCaseIgnorable }?.properties.isCased ?? false
}
