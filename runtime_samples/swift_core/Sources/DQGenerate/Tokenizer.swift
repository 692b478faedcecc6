import DQSampler
import Foundation

/// A piece of text that is one token wherever it stands, such as <|endoftext|>.
struct AddedToken: Sendable {
    let text: CodePoints
    let id: Int64
    /// Looked for in the normalized text, not in the text as it was written.
    let isNormalized: Bool
}

/// What a kind of tokenizer does with the text between added tokens.
protocol TokenModel: Sendable {
    func normalize(_ text: CodePoints) -> CodePoints
    /// Appends the tokens of a normalized text.
    func append(_ text: CodePoints, to ids: inout [Int64])
    /// About the text that the ids were made of, for messages.
    func text(_ ids: [Int64]) -> String
}

/// From a text to the ids of its tokens, as the tokenizers package has them, without what begins and ends a prompt.
public struct Tokenizer: Sendable {
    static let fileName = "tokenizer.json"

    private let added: [AddedToken]
    private let model: any TokenModel

    /// - Parameters: folder: holds tokenizer.json. kind: clip or t5.
    /// - Throws: SampleError: it is missing, damaged, or of another kind.
    public init(_ folder: URL, kind: String) throws {
        let file = folder.appendingPathComponent(Self.fileName), place = file.path
        guard let bytes = try? Data(contentsOf: file) else { throw SampleError("cannot read \(place); copy the bundle again, whole") }
        let json = try JSONReader.read(Array(bytes), name: place).asObject(place)
        model = try kind == "clip" ? ClipModel(json, place: place) : T5Model(json, place: place)
        added = try Self.added(json, place)
    }

    public func ids(_ text: String) -> [Int64] {
        var ids: [Int64] = []
        for written in split(text.codePoints, isNormalized: false) {
            guard case .text(let piece) = written else {
                if case .token(let id) = written { ids.append(id) }
                continue
            }
            for part in split(model.normalize(piece), isNormalized: true) {
                switch part {
                case .token(let id): ids.append(id)
                case .text(let text): model.append(text, to: &ids)
                }
            }
        }
        return ids
    }

    public func text(_ ids: [Int64]) -> String { model.text(ids) }

    private enum Stretch {
        case token(Int64)
        case text(CodePoints)
    }

    /// Added tokens and what lies between: leftmost first, of those at one place the longest.
    private func split(_ text: CodePoints, isNormalized: Bool) -> [Stretch] {
        let tokens = added.filter { $0.isNormalized == isNormalized }
        var parts: [Stretch] = [], between: CodePoints = [], at = 0
        while at < text.count {
            let here = tokens.filter { text[at...].starts(with: $0.text) }
            guard let best = here.max(by: { $0.text.count < $1.text.count }) else {
                between.append(text[at])
                at += 1
                continue
            }
            if !between.isEmpty { parts.append(.text(between)) }
            between = []
            parts.append(.token(best.id))
            at += best.text.count
        }
        return between.isEmpty ? parts : parts + [.text(between)]
    }

    private static func added(_ json: JSONObject, _ place: String) throws -> [AddedToken] {
        try json.required("added_tokens", place).asArray("\(place): added_tokens").map { row in
            let here = "\(place): added_tokens", token = try row.asObject(here)
            let content = try token.required("content", here).asString(here)
            for name in ["lstrip", "rstrip", "single_word"] where try token[name]?.asBool("\(here): \(name)") ?? false {
                throw SampleError("\(here): '\(content)' has \(name), which is not supported; export another model")
            }
            guard !content.isEmpty else { throw SampleError("\(here): a token is empty; export the bundle again") }
            let isNormalized = try token["normalized"]?.asBool("\(here): normalized") ?? false
            return AddedToken(
                text: content.codePoints, id: Int64(try token.required("id", here).asInt("\(here): id")), isNormalized: isNormalized)
        }
    }
}
