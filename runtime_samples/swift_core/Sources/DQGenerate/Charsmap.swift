import DQSampler
import Foundation

/// SentencePiece's compiled normalization: a double array of prefixes, and the texts that replace them.
struct Charsmap: Sendable {
    /// Bytes of a grapheme that is replaced as one.
    private static let shorterThan = 6

    private let units: [UInt32]
    /// Each ends with a NUL.
    private let replacements: [UInt8]

    /// - Parameter base64: of a tokenizer.json.
    /// - Throws: SampleError: it is damaged.
    init(_ base64: String, place: String) throws {
        let damaged = SampleError("\(place): precompiled_charsmap is damaged; export the bundle again")
        guard let data = Data(base64Encoded: base64), data.count >= 4 else { throw damaged }
        let bytes = [UInt8](data)
        func number(_ at: Int) -> UInt32 { (0..<4).reduce(0) { $0 | UInt32(bytes[at + $1]) << (8 * UInt32($1)) } }
        let size = Int(number(0))
        guard size > 0, size % 4 == 0, size <= bytes.count - 4 else { throw damaged }
        units = stride(from: 4, to: 4 + size, by: 4).map(number)
        replacements = Array(bytes[(4 + size)...])
        guard replacements.last == 0, String(bytes: replacements, encoding: .utf8) != nil else { throw damaged }
    }

    /// As the tokenizers package applies it: to each grapheme of less than 6 bytes, else to each of its characters.
    func normalize(_ text: CodePoints) -> CodePoints {
        var result: [UInt8] = [], start = 0
        while start < text.count {
            let end = endOfGrapheme(text, start), grapheme = Array(String(codePoints: text[start..<end]).utf8)
            if grapheme.count < Self.shorterThan, let whole = replacement(of: grapheme) {
                result += whole
            } else {
                for code in text[start..<end] {
                    let character = Array(String(codePoints: [code]).utf8)
                    result += replacement(of: character) ?? character[...]
                }
            }
            start = end
        }
        return String(decoding: result, as: UTF8.self).codePoints
    }

    /// What replaces the text, or its shortest prefix that is replaced; nil: nothing does, as in a damaged array.
    private func replacement(of text: [UInt8]) -> ArraySlice<UInt8>? {
        func unit(_ at: UInt32) -> UInt32? { at < units.count ? units[Int(at)] : nil }
        func offset(_ unit: UInt32) -> UInt32 { (unit >> 10) << ((unit & (1 << 9)) >> 6) }
        guard let root = unit(0) else { return nil }
        var at = offset(root)
        for byte in text {
            at ^= UInt32(byte)
            guard byte != 0, let here = unit(at), here & 0x8000_00FF == UInt32(byte) else { return nil }  // its label
            at ^= offset(here)
            guard here >> 8 & 1 != 0 else { continue }
            guard let value = unit(at), Int(value & 0x7FFF_FFFF) < replacements.count else { return nil }
            return replacements[Int(value & 0x7FFF_FFFF)...].prefix { $0 != 0 }
        }
        return nil
    }
}

/// Where the grapheme that begins there ends: a character, the marks that belong to it, and what they are put in front of. One of 6
/// bytes and more may be given in parts: syllables of Hangul, flags and joined emoji are.
private func endOfGrapheme(_ text: CodePoints, _ start: Int) -> Int {
    func has(_ table: [UInt32], _ at: Int) -> Bool { UnicodeTables.range(of: text[at], in: table, width: 2) != nil }
    var end = start + 1
    if text[start] == 0x0D, end < text.count, text[end] == 0x0A { return end + 1 }
    if has(UnicodeTables.controls, start) { return end }
    while end < text.count,
        has(UnicodeTables.extends, end) || (has(UnicodeTables.prepends, end - 1) && !has(UnicodeTables.controls, end))
    {
        end += 1
    }
    return end
}
