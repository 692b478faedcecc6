import DQSampler

/// CLIP's: NFC, one space for white space, lower case; words, digits and signs by themselves; then byte pair encoding.
struct ClipModel: TokenModel {
    private let pairs: BytePairs

    /// - Parameter json: tokenizer.json.
    /// - Throws: SampleError: it is damaged, or says other steps than these.
    init(_ json: JSONObject, place: String) throws {
        try Self.checkSteps(json, place)
        let model = try json.required("model", place).asObject("\(place): model")
        let vocabulary = try TokenizerFile.vocabulary(model, place), merges = try TokenizerFile.merges(model, place)
        let unknown = try model.required("unk_token", place).asString("\(place): unk_token")
        guard let id = vocabulary[unknown] else {
            throw SampleError("\(place): the vocabulary lacks the token '\(unknown)'; export the bundle again")
        }
        pairs = try BytePairs(vocabulary, merges: merges, unknown: id, place: place)
    }

    func normalize(_ text: CodePoints) -> CodePoints {
        var spaced: CodePoints = []
        for code in nfc(text) {
            guard code.isSpace else { spaced.append(code); continue }
            if spaced.last != Self.space { spaced.append(Self.space) }
        }
        return spaced.flatMap(\.lowerCase)
    }

    func append(_ text: CodePoints, to ids: inout [Int64]) {
        var at = 0
        while at < text.count {
            let start = at, fixed = Self.fixedLength(text, at)
            if fixed > 3 {  // a special token's name that is none here: the name and the signs around it
                at += fixed
                for word in [start..<start + 2, start + 2..<at - 2, at - 2..<at] { pairs.append(text[word], to: &ids) }
            } else if fixed > 0 {
                at += fixed
                pairs.append(text[start..<at], to: &ids)
            } else {
                let kind = Kind(text[at])
                repeat { at += 1 } while kind != .number && at < text.count && Kind(text[at]) == kind
                if kind != .space { pairs.append(text[start..<at], to: &ids) }
            }
        }
    }

    func text(_ ids: [Int64]) -> String { pairs.text(ids) }

    private enum Kind {
        case letter, number, space, sign

        init(_ code: UInt32) {
            self = code.isLetter ? .letter : code.isNumber ? .number : code.isSpace ? .space : .sign
        }
    }

    private static let space: UInt32 = 0x20

    private static let fixed = ["<|startoftext|>", "<|endoftext|>", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].map(\.codePoints)

    /// Of the text among `fixed` that stands there; 0: none.
    private static func fixedLength(_ text: CodePoints, _ at: Int) -> Int {
        guard text[at] == 0x27 || text[at] == 0x3C else { return 0 }  // ' and <
        return fixed.first { text[at...].starts(with: $0) }?.count ?? 0
    }

    private static let pattern = #"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"#

    /// What this type computes must be what the file says.
    private static func checkSteps(_ json: JSONObject, _ place: String) throws {
        let steps = try TokenizerFile.steps(json, "normalizer", "normalizers", count: 3, place)
        let splits = try TokenizerFile.steps(json, "pre_tokenizer", "pretokenizers", count: 2, place)
        let model = try json.required("model", place).asObject("\(place): model")
        try TokenizerFile.expect(steps[0], "type", "NFC", place)
        try TokenizerFile.expect(steps[1], "type", "Replace", place)
        try TokenizerFile.expectPattern(steps[1], #"\s+"#, place)
        try TokenizerFile.expect(steps[1], "content", " ", place)
        try TokenizerFile.expect(steps[2], "type", "Lowercase", place)
        try TokenizerFile.expect(splits[0], "type", "Split", place)
        try TokenizerFile.expectPattern(splits[0], pattern, place)
        try TokenizerFile.expect(splits[1], "type", "ByteLevel", place)
        try TokenizerFile.expect(model, "end_of_word_suffix", BytePairs.endOfWord, place)
    }
}
