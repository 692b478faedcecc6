import DQSampler

/// Byte pair encoding of one word: its bytes, the last one marked as the end of a word, merged by the order of the merges.
struct BytePairs: Sendable {
    private struct Merge {
        let rank: Int
        let id: Int64
    }

    static let endOfWord = "</w>"

    private let vocabulary: [String: Int64]
    private let merges: [UInt64: Merge]
    /// Ids of the 256 bytes within a word, and at its end.
    private let inner: [Int64]
    private let last: [Int64]

    /// - Parameters: merges: of two tokens, in their order. unknown: the id of a byte that the vocabulary lacks.
    /// - Throws: SampleError: a merge is of tokens that the vocabulary lacks.
    init(_ vocabulary: [String: Int64], merges: [(String, String)], unknown: Int64, place: String) throws {
        var found: [UInt64: Merge] = [:]
        found.reserveCapacity(merges.count)
        for (rank, (left, right)) in merges.enumerated() {
            guard let a = vocabulary[left], let b = vocabulary[right], let both = vocabulary[left + right] else {
                throw SampleError(
                    "\(place): merge \(rank), '\(left) \(right)', is of tokens that the vocabulary lacks; export the bundle again")
            }
            found[Self.key(a, b)] = Merge(rank: rank, id: both)
        }
        (self.vocabulary, self.merges) = (vocabulary, found)
        inner = Self.alphabet.map { vocabulary[$0] ?? unknown }
        last = Self.alphabet.map { vocabulary[$0 + Self.endOfWord] ?? unknown }
    }

    /// Appends the tokens of a word.
    func append(_ word: some Sequence<UInt32>, to ids: inout [Int64]) {
        let bytes = Array(String(codePoints: word).utf8)
        guard let end = bytes.last else { return }
        var symbols = bytes.dropLast().map { inner[Int($0)] } + [last[Int(end)]]
        var pairs = symbols.indices.map { merge(symbols, at: $0) }  // of each symbol with the one behind it
        while let best = pairs.indices.min(by: { rank(pairs[$0]) < rank(pairs[$1]) }), let merged = pairs[best] {
            symbols[best] = merged.id
            symbols.remove(at: best + 1)
            pairs.remove(at: best + 1)
            pairs[best] = merge(symbols, at: best)
            if best > 0 { pairs[best - 1] = merge(symbols, at: best - 1) }
        }
        ids.append(contentsOf: symbols)
    }

    /// About the text that the ids were made of; an end of a word is a space.
    func text(_ ids: [Int64]) -> String {
        let wanted = Set(ids), names = vocabulary.filter { wanted.contains($0.value) }
        let tokens = Dictionary(names.map { ($0.value, $0.key) }, uniquingKeysWith: { one, _ in one })
        let bytes = Dictionary(uniqueKeysWithValues: Self.alphabet.enumerated().map { ($1, UInt8($0)) })
        var found: [UInt8] = []
        for id in ids {
            let token = tokens[id] ?? "", ends = token.hasSuffix(Self.endOfWord)
            for character in token.dropLast(ends ? Self.endOfWord.count : 0) {
                if let byte = bytes[String(character)] { found.append(byte) } else { found += Array(String(character).utf8) }
            }
            if ends { found.append(UInt8(ascii: " ")) }
        }
        while found.last == UInt8(ascii: " ") { found.removeLast() }
        return String(decoding: found, as: UTF8.self)
    }

    private func rank(_ merge: Merge?) -> Int { merge?.rank ?? .max }

    private func merge(_ symbols: [Int64], at index: Int) -> Merge? {
        index + 1 < symbols.count ? merges[Self.key(symbols[index], symbols[index + 1])] : nil
    }

    private static func key(_ left: Int64, _ right: Int64) -> UInt64 { UInt64(left) << 32 | UInt64(right) }

    /// How the 256 bytes are written: printable characters of Latin 1 stand for themselves, the others for 256, 257, ...
    private static let alphabet: [String] = {
        var next: UInt32 = 256
        return (UInt32(0)..<256).map { byte in
            let isPrintable = (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || byte >= 0xAE
            defer { if !isPrintable { next += 1 } }
            return String(codePoints: [isPrintable ? byte : next])
        }
    }()
}
