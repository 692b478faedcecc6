import DQSampler

/// T5's: SentencePiece's normalization where there is one, words at white space, each marked in front, then the unigram model.
struct T5Model: TokenModel {
    /// Stands for the space before a word.
    private static let mark: UInt32 = 0x2581, markText = "\u{2581}"

    private let charsmap: Charsmap?
    private let unigram: Unigram

    /// - Parameter json: tokenizer.json.
    /// - Throws: SampleError: it is damaged, or says other steps than these.
    init(_ json: JSONObject, place: String) throws {
        let splits = try TokenizerFile.steps(json, "pre_tokenizer", "pretokenizers", count: 2, place)
        try TokenizerFile.expect(splits[0], "type", "WhitespaceSplit", place)
        try TokenizerFile.expect(splits[1], "type", "Metaspace", place)
        try TokenizerFile.expect(splits[1], "replacement", Self.markText, place)
        try TokenizerFile.expect(splits[1], "prepend_scheme", "always", place)
        let model = try json.required("model", place).asObject("\(place): model")
        try TokenizerFile.expect(model, "type", "Unigram", place)
        if try model["byte_fallback"]?.asBool("\(place): byte_fallback") ?? false {
            throw SampleError("\(place): byte_fallback is not supported; export another model")
        }
        let pieces = try model.required("vocab", place).asArray("\(place): vocab").map { row in
            let pair = try row.asArray("\(place): vocab")
            guard pair.count == 2 else {
                throw SampleError("\(place): a piece must be a text and a score, got \(pair.count) values; export the bundle again")
            }
            return (text: Array(try pair[0].asString("\(place): vocab").utf8), score: try pair[1].asDouble("\(place): vocab"))
        }
        unigram = try Unigram(pieces, unknown: model.required("unk_id", place).asInt("\(place): unk_id"), place: place)
        let normalizer = try json.required("normalizer", place)
        if normalizer == .null {
            charsmap = nil
        } else {
            let object = try normalizer.asObject("\(place): normalizer")
            try TokenizerFile.expect(object, "type", "Precompiled", place)
            charsmap = try Charsmap(object.required("precompiled_charsmap", place).asString("\(place): precompiled_charsmap"), place: place)
        }
    }

    func normalize(_ text: CodePoints) -> CodePoints { charsmap?.normalize(text) ?? text }

    func append(_ text: CodePoints, to ids: inout [Int64]) {
        for word in text.split(whereSeparator: \.isSpace) {
            var piece: CodePoints = word.first == Self.mark ? [] : [Self.mark]
            for code in word {
                if code == Self.mark, !piece.isEmpty {  // a mark in the text begins a word, too
                    unigram.append(Array(String(codePoints: piece).utf8), to: &ids)
                    piece = []
                }
                piece.append(code)
            }
            unigram.append(Array(String(codePoints: piece).utf8), to: &ids)
        }
    }

    func text(_ ids: [Int64]) -> String {
        let marked = String(decoding: ids.flatMap { unigram.text($0) }, as: UTF8.self)
        let codes = marked.codePoints.map { $0 == Self.mark ? 0x20 : $0 }
        return String(codePoints: codes.drop { $0 == 0x20 })
    }
}
