/// Canonically decomposed, ordered and composed (UAX 15).
func nfc(_ text: CodePoints) -> CodePoints {
    var apart: CodePoints = []
    for code in text { decompose(code, into: &apart) }
    putInOrder(&apart)
    var result: CodePoints = [], starter: Int?, last: UInt32 = 0  // starter: the last character of class 0
    for code in apart {
        let own = code.combiningClass
        // Nothing of its class or above, and no starter, may be in between.
        if let place = starter, place + 1 == result.count || last < own, let both = composed(result[place], code) {
            result[place] = both
            continue
        }
        if own == 0 { starter = result.count }
        last = own
        result.append(code)
    }
    return result
}

/// Syllables of Hangul are arithmetic: a first consonant, a vowel and perhaps a last consonant.
private enum Hangul {
    static let syllables: UInt32 = 0xAC00, firsts: UInt32 = 0x1100, vowels: UInt32 = 0x1161, lasts: UInt32 = 0x11A7
    static let firstCount: UInt32 = 19, vowelCount: UInt32 = 21, lastCount: UInt32 = 28
    static let all = syllables..<syllables + firstCount * vowelCount * lastCount
}

private func decompose(_ code: UInt32, into result: inout CodePoints) {
    let (singletons, pairs) = (UnicodeTables.singletons, UnicodeTables.pairs)
    if code < 0xC0 {
        result.append(code)  // most texts are nothing else
    } else if Hangul.all.contains(code) {
        let index = code - Hangul.syllables
        result.append(Hangul.firsts + index / (Hangul.vowelCount * Hangul.lastCount))
        result.append(Hangul.vowels + index / Hangul.lastCount % Hangul.vowelCount)
        if index % Hangul.lastCount != 0 { result.append(Hangul.lasts + index % Hangul.lastCount) }
    } else if let row = UnicodeTables.row(of: code, in: singletons, width: 2) {
        decompose(singletons[row + 1], into: &result)
    } else if let row = UnicodeTables.row(of: code, in: pairs, width: 3) {
        decompose(pairs[row + 1], into: &result)
        decompose(pairs[row + 2], into: &result)
    } else {
        result.append(code)
    }
}

/// Marks behind a character by their classes; those of one class keep their order.
private func putInOrder(_ text: inout CodePoints) {
    let classes = text.map(\.combiningClass)
    var start = 0
    while start < text.count {
        var end = start
        while end < text.count, classes[end] != 0 { end += 1 }
        if end - start > 1 {
            let places = (start..<end).sorted { (classes[$0], $0) < (classes[$1], $1) }
            text.replaceSubrange(start..<end, with: places.map { text[$0] })
        }
        start = end + 1
    }
}

/// By the two that become one, as one number.
private let composites: [UInt64: UInt32] = {
    let (pairs, excluded) = (UnicodeTables.pairs, UnicodeTables.excluded)
    var found: [UInt64: UInt32] = [:]
    for row in stride(from: 0, to: pairs.count, by: 3) where UnicodeTables.row(of: pairs[row], in: excluded, width: 1) == nil {
        found[UInt64(pairs[row + 1]) << 32 | UInt64(pairs[row + 2])] = pairs[row]
    }
    return found
}()

/// What the two become; nil: they stay two.
private func composed(_ a: UInt32, _ b: UInt32) -> UInt32? {
    if (Hangul.firsts..<Hangul.firsts + Hangul.firstCount).contains(a),
        (Hangul.vowels..<Hangul.vowels + Hangul.vowelCount).contains(b)
    {
        return Hangul.syllables + ((a - Hangul.firsts) * Hangul.vowelCount + (b - Hangul.vowels)) * Hangul.lastCount
    }
    let isOpen = Hangul.all.contains(a) && (a - Hangul.syllables) % Hangul.lastCount == 0
    if isOpen, b > Hangul.lasts, b < Hangul.lasts + Hangul.lastCount { return a + (b - Hangul.lasts) }
    return composites[UInt64(a) << 32 | UInt64(b)]
}
