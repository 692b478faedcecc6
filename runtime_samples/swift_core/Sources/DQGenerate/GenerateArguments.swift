import DQSampler
import Foundation

/// The command line of `generate`, and what a program adds to it.
public struct GenerateArguments: Sendable {
    public let bundle: URL
    /// Without the picture: who draws reads the file.
    public let wish: Wish
    /// A PNG file to begin with, in the place of noise.
    public let image: URL?
    /// nil: the calibrated ones.
    public let steps: Int?
    public let guidance: Double?
    public let lowMemory: Bool
    public let out: URL
    /// Where the finished latents go, too.
    public let latents: URL?
    /// The program's own options by flag.
    public let own: [String: String]

    public static func usage(_ program: String, _ options: [Arguments.Option] = []) -> String {
        """
        usage: \(program) --bundle FOLDER --prompt TEXT --out PICTURE.png [--negative-prompt TEXT] [--label N] [--seed N] [--steps N] \
        [--guidance W] [--image PICTURE.png [--strength S]] [--low-memory] [--latents FILE] \(options.map(\.usage).joined(separator: " "))
        Draws the picture that a prompt describes, with an exported pipeline.
        --prompt TEXT: what is too long for the text encoder is left out, and said
        --negative-prompt TEXT: what not to draw; only with guidance
        --label N: the class to draw, of a model that takes one in the place of a prompt
        --seed N: of the noise; the same seed gives the same picture (default: 0)
        --steps N, --guidance W: of the step counts and guidance scales that the bundle holds (default: the calibrated ones)
        --image PICTURE.png: begins with this picture, of the model's size, in the place of noise
        --strength S: how much of it is changed, above 0 to 1 (default: \(Wish.usualStrength))
        --low-memory: loads text encoders, network and decoder one after the other
        --latents FILE: writes the finished latents, too, as safetensors
        example: \(program) --bundle bundle --prompt "a red house" --negative-prompt blurry --seed 7 --out picture.png
        """
    }

    /// - Parameter arguments: without the program's name and "generate".
    /// - Throws: SampleError: unknown, twice, without a value, or not allowed.
    public init(_ arguments: [String], options: [Arguments.Option] = []) throws {
        let own = Set(options.map(\.flag))
        let known = own.union([
            "--bundle", "--prompt", "--negative-prompt", "--label", "--seed", "--steps", "--guidance", "--out", "--latents",
            "--image", "--strength",
        ])
        let words = try OptionWords(arguments, known: known, alone: ["--low-memory"]), values = words.values
        for flag in ["--bundle", "--out"] + options.filter(\.required).map(\.flag) where values[flag]?.isEmpty ?? true {
            throw SampleError("\(flag) is missing; see --help")
        }
        try words.check(options)
        var seed: UInt64 = 0
        if let text = values["--seed"] {
            guard let number = UInt64(text), number < Wish.mostSeeds else {
                throw SampleError("--seed must be 0-\(Wish.mostSeeds - 1), got '\(text)'; change it")
            }
            seed = number
        }
        image = values["--image"].map { URL(fileURLWithPath: $0) }
        let strength = try words.number("--strength")
        guard strength == nil || image != nil else {
            throw SampleError("--strength says how much of a picture is changed, and there is none; give --image, or leave it out")
        }
        wish = Wish(
            prompt: values["--prompt"], negativePrompt: values["--negative-prompt"] ?? "", label: try words.count("--label", from: 0),
            seed: seed, strength: strength ?? Wish.usualStrength)
        try Wish.check(strength: wish.strength)
        for text in [wish.prompt ?? "", wish.negativePrompt] { try Wish.check(text) }
        steps = try words.count("--steps")
        guidance = try words.number("--guidance")
        lowMemory = values["--low-memory"] != nil
        bundle = URL(fileURLWithPath: values["--bundle"] ?? "", isDirectory: true)
        out = URL(fileURLWithPath: values["--out"] ?? "")
        guard out.pathExtension == "png" else {
            throw SampleError("--out must end with .png, got '\(out.lastPathComponent)'; change --out")
        }
        latents = values["--latents"].map { URL(fileURLWithPath: $0) }
        self.own = values.filter { own.contains($0.key) }
    }
}
