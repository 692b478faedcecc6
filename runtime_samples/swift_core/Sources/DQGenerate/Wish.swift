import DQSampler
import Foundation

/// What a picture is asked to be.
public struct Wish: Sendable, Equatable {
    /// nil: of a network that takes no text.
    public var prompt: String?
    /// What not to draw; without guidance nobody reads it.
    public var negativePrompt: String
    /// Of a network that takes a class in the place of a prompt.
    public var label: Int?
    /// Of the noise: the same seed gives the same picture.
    public var seed: UInt64
    /// What the picture begins with, in the place of noise: of the size that the model takes.
    public var image: Picture?
    /// How much of `image` is changed, above 0 to 1.
    public var strength: Double

    public static let usualStrength = 0.8

    public static let labelInput = "class_labels"
    public static let longestPrompt = 10_000
    public static let mostSeeds = UInt64(1) << 63

    public init(prompt: String?, negativePrompt: String = "", label: Int? = nil, seed: UInt64 = 0, image: Picture? = nil, strength: Double = usualStrength) {
        (self.prompt, self.negativePrompt, self.label, self.seed) = (prompt, negativePrompt, label, seed)
        (self.image, self.strength) = (image, strength)
    }

    /// (word:1.3), ((word)), [[word]], <lora:name:1> and <token>: notation of other programs, which a tokenizer reads as letters; and
    /// <|endoftext|>, which it reads as the end.
    private static let weighted = #"\([^()]*:\s*-?\d*\.?\d+\s*\)|\(\(|\[\[|<\|[^|]*\|>|<[\w\-]+(:[^<>\s]*)?>"#

    /// - Throws: SampleError: the pipeline cannot fulfil it, by the texts of `dq-toolchain generate`.
    public func check(takesText: Bool, takesLabel: Bool) throws {
        if takesText, prompt == nil {
            throw SampleError(#"--prompt is missing: this model draws what a text says; give one, as in --prompt "a red house""#)
        }
        if !takesText, prompt != nil || !negativePrompt.isEmpty {
            throw SampleError("--prompt: this model takes no text; \(takesLabel ? "give --label" : "leave it out")")
        }
        if takesLabel, label ?? -1 < 0 {
            throw SampleError("--label: this model draws a class, got \(label.map(String.init) ?? "None"); give its number, from 0")
        }
        if !takesLabel, label != nil { throw SampleError("--label: this model takes no class; leave it out") }
        for text in [prompt ?? "", negativePrompt] { try Self.check(text) }
        try Self.check(strength: strength)
        guard seed < Self.mostSeeds else { throw SampleError("--seed must be 0-\(Self.mostSeeds - 1), got \(seed); change it") }
    }

    /// - Throws: SampleError: it is not above 0 and at most 1.
    public static func check(strength: Double) throws {
        guard strength > 0, strength <= 1 else {
            throw SampleError("--strength must be above 0 and at most 1, got \(String(format: "%g", strength)); change it")
        }
    }

    /// - Throws: SampleError: the text is too long, or has weights or names of embeddings.
    public static func check(_ text: String) throws {
        let count = text.unicodeScalars.count
        guard count <= longestPrompt else {
            throw SampleError("a prompt has \(grouped(count)) characters, allowed are \(grouped(longestPrompt)); shorten it")
        }
        let all = NSRange(text.startIndex..., in: text)
        guard let found = try NSRegularExpression(pattern: weighted).firstMatch(in: text, range: all),
            let range = Range(found.range, in: text)
        else { return }
        throw SampleError(
            "prompt \(quoted(text, 40)): weights and embeddings such as \(quoted(String(text.unicodeScalars[range]), 30)) are not "
                + "supported, the text encoder would read them as letters; write plain words")
    }
}

/// 12345 as 12,345.
private func grouped(_ number: Int) -> String {
    let digits = Array(String(number))
    return digits.indices.map { (digits.count - $0) % 3 == 0 && $0 > 0 ? ",\(digits[$0])" : "\(digits[$0])" }.joined()
}

/// The first `count` characters in quotes, as Python's repr writes them: messages are the same in all languages.
func quoted(_ text: String, _ count: Int) -> String {
    let scalars = text.unicodeScalars.prefix(count)
    let quote: Unicode.Scalar = scalars.contains("'") && !scalars.contains("\"") ? "\"" : "'"
    let shown = scalars.map { scalar -> String in
        switch scalar {
        case quote, "\\": return "\\\(scalar)"
        case "\n": return "\\n"
        case "\r": return "\\r"
        case "\t": return "\\t"
        case " ": return " "
        default: return isPrintable(scalar) ? String(Character(scalar)) : escaped(scalar.value)
        }
    }
    return "\(quote)\(shown.joined())\(quote)"
}

private func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.properties.generalCategory {
    case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator, .spaceSeparator: return false
    default: return true
    }
}

private func escaped(_ code: UInt32) -> String {
    let (letter, width) = code < 0x100 ? ("x", 2) : code < 0x10000 ? ("u", 4) : ("U", 8)
    let digits = String(code, radix: 16)
    return "\\\(letter)\(String(repeating: "0", count: width - digits.count))\(digits)"
}
