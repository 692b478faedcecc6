import DQSampler

/// SentencePiece's unigram model: of all ways to cut a word into pieces the likeliest.
struct Unigram: Sendable {
    private static let unknownPenalty = 10.0

    private let pieces: [(text: [UInt8], score: Double)]
    private let ids: [[UInt8]: Int]
    private let unknown: Int
    private let unknownScore: Double
    /// Bytes of a piece.
    private let longest: Int

    /// - Parameters: pieces: UTF-8, with the logarithm of how likely each is; the id is the place. unknown: of what no piece covers.
    /// - Throws: SampleError: `unknown` is no id.
    init(_ pieces: [(text: [UInt8], score: Double)], unknown: Int, place: String) throws {
        guard pieces.indices.contains(unknown) else {
            throw SampleError("\(place): unk_id must be a token of the vocabulary, got \(unknown); export the bundle again")
        }
        (self.pieces, self.unknown) = (pieces, unknown)
        ids = Dictionary(pieces.enumerated().map { ($1.text, $0) }, uniquingKeysWith: { $1 })
        unknownScore = (pieces.map(\.score).min() ?? 0) - Self.unknownPenalty
        longest = pieces.map(\.text.count).max() ?? 0
    }

    /// The best way to cut a word up to a byte: its score, and its last piece.
    private struct Best {
        let score: Double
        let start: Int
        let id: Int
    }

    /// Appends the ids of a word's pieces; `word` is UTF-8.
    func append(_ word: [UInt8], to found: inout [Int64]) {
        var best = [Best?](repeating: nil, count: word.count + 1), start = 0
        func offer(_ end: Int, _ id: Int, _ score: Double) {
            let total = score + (best[start]?.score ?? 0)
            if total > best[end]?.score ?? -.infinity { best[end] = Best(score: total, start: start, id: id) }
        }
        while start < word.count {
            var character = 1  // bytes
            while start + character < word.count, word[start + character] & 0xC0 == 0x80 { character += 1 }
            var hasSingle = false
            for length in 1...max(1, min(longest, word.count - start)) {
                guard let id = ids[Array(word[start..<start + length])] else { continue }
                offer(start + length, id, pieces[id].score)
                hasSingle = hasSingle || length == character
            }
            if !hasSingle { offer(start + character, unknown, unknownScore) }
            start += character
        }
        var backwards: [Int] = [], runEnd = 0, end = word.count  // runEnd: of unknown pieces side by side, which are one; 0: none
        func endRun(_ start: Int) {
            if runEnd > 0 { backwards.append(ids[Array(word[start..<runEnd])] ?? unknown) }
            runEnd = 0
        }
        while end > 0, let last = best[end] {
            if last.id == unknown {
                runEnd = max(runEnd, end)
            } else {
                endRun(end)
                backwards.append(last.id)
            }
            end = last.start
        }
        endRun(0)
        found.append(contentsOf: backwards.reversed().map(Int64.init))
    }

    func text(_ id: Int64) -> [UInt8] { pieces[pieces.indices.contains(Int(id)) ? Int(id) : unknown].text }
}
