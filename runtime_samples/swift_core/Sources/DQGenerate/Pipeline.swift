import DQSampler
import Foundation

/// What stands around the network, from a prompt to a picture: pipeline.json, checked so that the rest may rely on it.
public struct Pipeline: Sendable, Equatable {
    public static let fileName = "pipeline.json"

    /// A tokenizer's folder, and what a prompt of `length` ids is made of.
    public struct TokenizerPart: Sendable, Equatable {
        public let name: String
        /// clip or t5.
        public let kind: String
        public let folder: String
        public let length: Int
        public let pad: Int64
        /// nil: nothing begins a prompt.
        public let begin: Int64?
        public let end: Int64
        /// The text is put in lower case and stripped first.
        public let lower: Bool
    }

    /// A text encoder: ids (1, length) and perhaps the tokenizer's mask to `outputs`, each hidden or pooled.
    public struct EncoderPart: Sendable, Equatable {
        public let name: String
        public let tokenizer: String
        public let program: String
        public let takesMask: Bool
        public let outputs: [String]
    }

    /// From latents (1, C, h, w) to a picture (1, channels, height, width), about -1 to 1.
    public struct DecoderPart: Sendable, Equatable {
        public let program: String
        public let channels: Int
        public let height: Int
        public let width: Int
    }

    /// None, and no encoders: the network takes no text.
    public let tokenizers: [TokenizerPart]
    public let encoders: [EncoderPart]
    /// By input of the network, rows of "text_encoder.hidden": see `joined`.
    public let conditioning: [String: [[String]]]
    /// A file of what no prompt decides; nil: there is nothing.
    public let constants: String?
    /// An empty negative prompt is zeros, and not the encoded empty text.
    public let zerosWithoutNegative: Bool
    /// nil: the network makes pictures itself.
    public let decoder: DecoderPart?
    /// nil: a run begins with noise only.
    public let image: ImageToImage?

    private static let place = fileName
    /// What a side of a picture can be.
    public static let sides = 1...16384

    /// Whether a bundle holds more than a network.
    public static func isIn(_ bundle: ExportedBundle) -> Bool { bundle.lists(fileName) }

    /// - Throws: SampleError: the bundle holds the network alone, or pipeline.json is damaged.
    public init(_ bundle: ExportedBundle) throws {
        guard Self.isIn(bundle) else {
            throw SampleError(
                "\(bundle.folder.path) holds the network alone, without text encoders and decoder; export it from a pipeline without "
                    + "--unet-only")
        }
        let file = bundle.folder.appendingPathComponent(Self.fileName)
        guard let bytes = try? Data(contentsOf: file) else { throw SampleError("cannot read \(file.path); copy the bundle again, whole") }
        try self.init(JSONReader.read(Array(bytes), name: Self.place).asObject(Self.place), bundle)
        let programs = encoders.map(\.program) + [decoder?.program, image?.program, constants].compactMap { $0 }
        for path in tokenizers.map({ "\($0.folder)/\(Tokenizer.fileName)" }) + programs where !bundle.lists(path) {
            throw SampleError("\(Self.place): bundle.json lists no '\(path)'; export the bundle again")
        }
    }

    /// What pipeline.json says, without a look at other files.
    /// - Throws: SampleError: a key is missing or of another kind, or it does not fit the network of the bundle.
    init(_ json: JSONObject, _ bundle: ExportedBundle) throws {
        let place = Self.place
        guard json["schema"] == .string("dq-toolchain/pipeline"), json["schema_version"] == .integer(1) else {
            throw SampleError("\(place) must be dq-toolchain/pipeline, version 1, and is not; export the bundle again")
        }
        let tokenizers = try json.parts("tokenizers", place, \.name) { try TokenizerPart($0, $1) }
        let encoders = try json.parts("encoders", place, \.name) { try EncoderPart($0, $1, tokenizers: tokenizers.map(\.name)) }
        let known = encoders.flatMap { encoder in encoder.outputs.map { "\(encoder.name).\($0)" } } + tokenizers.map { "\($0.name).mask" }
        let rows = try json.required("conditioning", place).asObject("\(place): conditioning")
        var conditioning: [String: [[String]]] = [:]
        for name in rows.keys {
            let here = "\(place): conditioning.\(name)"
            guard let port = bundle.conditioning.first(where: { $0.name == name }), port.kind == .float32 else {
                throw SampleError("\(here): the network takes no float32 input of this name; export the bundle again")
            }
            let listed = try rows.required(name, here).asArray(here).map { try $0.asArray(here).map { try $0.asString(here) } }
            guard !listed.isEmpty, listed.allSatisfy({ !$0.isEmpty }) else {
                throw SampleError("\(here) must not be empty, nor hold an empty row; export the bundle again")
            }
            if let strange = listed.joined().first(where: { !known.contains($0) }) {
                throw SampleError(
                    "\(here): '\(strange)' is neither an output of an encoder nor the mask of a tokenizer; export the bundle again")
            }
            conditioning[name] = listed
        }
        let constants = try json.required("constants", place)
        self.constants = try constants == .null ? nil : Self.path(constants, "\(place): constants")
        if constants == .null,
            let port = bundle.conditioning.first(where: { conditioning[$0.name] == nil && $0.name != Wish.labelInput })
        {
            throw SampleError("\(place): conditioning lacks '\(port.name)', and there are no constants; export the bundle again")
        }
        zerosWithoutNegative = try json.required("zeros_without_negative", place).asBool("\(place): zeros_without_negative")
        let decoder = try json.required("decoder", place)
        self.decoder = try decoder == .null ? nil : DecoderPart(decoder.asObject("\(place): decoder"), "\(place): decoder")
        let image = "\(place): \(ImageToImage.key)"
        self.image = try json[ImageToImage.key].map { try ImageToImage($0.asObject(image), image) }
        (self.tokenizers, self.encoders, self.conditioning) = (tokenizers, encoders, conditioning)
    }

    /// A path relative to the bundle's folder that does not lead out of it.
    static func path(_ value: JSONValue, _ place: String) throws -> String {
        let path = try value.asString(place), parts = path.split(separator: "/", omittingEmptySubsequences: false)
        guard !parts.contains(where: { ["", ".", ".."].contains($0) }), !path.contains("\\"), !path.contains(":") else {
            throw SampleError("\(place) names a place outside the bundle, '\(path)'; export the bundle again")
        }
        return path
    }
}
