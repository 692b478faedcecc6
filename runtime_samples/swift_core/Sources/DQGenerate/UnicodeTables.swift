/// Properties of characters as the host's tokenizers know them, the same on every system: a system's own are those of its version
/// of Unicode.
enum UnicodeTables {
    /// Hexadecimal numbers with white space between.
    static func read(_ text: String) -> [UInt32] {
        text.utf8.split(whereSeparator: { $0 == 0x20 || $0 == 0x0A }).map { word in
            word.reduce(0) { $0 << 4 | UInt32($1 - ($1 < 0x41 ? 0x30 : 0x37)) }
        }
    }

    /// Where the row of a table of ranges starts that holds `code`; a row is `width` numbers, the first two its range.
    static func range(of code: UInt32, in table: [UInt32], width: Int) -> Int? {
        let row = firstRow(in: table, width: width) { table[$0 + 1] < code }
        return row < table.count && table[row] <= code ? row : nil
    }

    /// Where the row starts whose first number is `code`.
    static func row(of code: UInt32, in table: [UInt32], width: Int) -> Int? {
        let row = firstRow(in: table, width: width) { table[$0] < code }
        return row < table.count && table[row] == code ? row : nil
    }

    /// The start of the first row that is not before what is looked for; rows are in order.
    private static func firstRow(in table: [UInt32], width: Int, isBefore: (Int) -> Bool) -> Int {
        var low = 0, high = table.count / width
        while low < high {
            let middle = (low + high) / 2
            if isBefore(middle * width) { low = middle + 1 } else { high = middle }
        }
        return low * width
    }
}

/// Code points of a text, which are compared one by one: a String would compare by canonical equivalence.
typealias CodePoints = [UInt32]

extension String {
    var codePoints: CodePoints { unicodeScalars.map(\.value) }

    init(codePoints: some Sequence<UInt32>) {
        var scalars = String.UnicodeScalarView()
        scalars.append(contentsOf: codePoints.compactMap { Unicode.Scalar($0) })
        self.init(scalars)
    }
}

extension UInt32 {
    var isLetter: Bool { UnicodeTables.range(of: self, in: UnicodeTables.letters, width: 2) != nil }
    var isNumber: Bool { UnicodeTables.range(of: self, in: UnicodeTables.numbers, width: 2) != nil }
    var isSpace: Bool { UnicodeTables.range(of: self, in: UnicodeTables.spaces, width: 2) != nil }

    /// Canonical combining class.
    var combiningClass: UInt32 {
        UnicodeTables.range(of: self, in: UnicodeTables.classes, width: 3).map { UnicodeTables.classes[$0 + 2] } ?? 0
    }

    /// Each character by itself: a sigma at the end of a word is one as any other.
    var lowerCase: CodePoints {
        let table = UnicodeTables.lower, two = UnicodeTables.lowerLong
        if self == two[0] { return [two[1], two[2]] }  // the only character whose lower case is two
        guard let row = UnicodeTables.range(of: self, in: table, width: 4), (self - table[row]) % table[row + 3] == 0 else {
            return [self]
        }
        return [self &+ table[row + 2]]
    }
}
