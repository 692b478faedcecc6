import DQGenerate
import DQSampler
import Foundation

/// What is written on the screen of prompts, and whether it can be drawn.
public struct PromptForm: Sendable, Equatable {
    public var prompt = ""
    public var negativePrompt = ""
    /// As written; empty is 0.
    public var seed = "7"
    /// Text encoders, network and decoder are loaded one after the other.
    public var lowMemory = true
    /// What the picture begins with, in the place of noise.
    public var image: Picture?
    /// How much of `image` is changed, above 0 to 1.
    public var strength = Wish.usualStrength

    public init() {}

    /// The picture as it would be taken by a bundle: none, or of its size.
    public func fits(_ size: DeviceBundle.PictureSize?) -> Bool {
        guard let image else { return true }
        return size.map { $0.height == image.height && $0.width == image.width } ?? false
    }

    /// - Throws: SampleError: what is written cannot be drawn, with the reason.
    public func wish() throws -> Wish {
        let text = seed.trimmingCharacters(in: .whitespaces)
        guard let number = text.isEmpty ? 0 : UInt64(text), number < Wish.mostSeeds else {
            throw SampleError("the seed must be 0-\(Wish.mostSeeds - 1), got '\(text)'; change it")
        }
        let wish = Wish(prompt: prompt, negativePrompt: negativePrompt, seed: number, image: image, strength: strength)
        for text in [prompt, negativePrompt] { try Wish.check(text) }
        try Wish.check(strength: strength)
        return wish
    }

    /// Why nothing can be drawn; nil: it can, or nothing is written yet.
    public var problem: String? {
        do { _ = try wish() } catch { return "\(error)" }
        return nil
    }

    public var canDraw: Bool { !prompt.isEmpty && problem == nil }

    /// Another seed: the one behind this, and 0 behind the last one.
    public mutating func nextSeed() {
        let number = UInt64(seed.trimmingCharacters(in: .whitespaces)) ?? 0
        seed = String(number < Wish.mostSeeds - 1 ? number + 1 : 0)
    }
}

/// A picture that a bundle on this device drew.
public struct DrawnPicture: Sendable {
    public let outcome: Drawing.Outcome
    /// The PNG, to hand out.
    public let file: URL
    /// What of the prompts was left out.
    public let warnings: [String]

    /// Draws and writes the file.
    ///
    /// - Parameters: folder: of the bundle. file: its folder is made if it is not there.
    /// - Throws: SampleError: the wish cannot be fulfilled, a runtime refuses, or the file cannot be written. CancellationError.
    public static func draw(
        _ wish: Wish, folder: URL, runtime: DeviceRuntime, unit: DeviceRuntime.Unit, lowMemory: Bool, file: URL,
        onProgress: @escaping Drawing.OnProgress
    ) async throws -> DrawnPicture {
        let bundle = try ExportedBundle(folder, target: runtime.rawValue)
        let programs = try runtime.programs(unit: unit, keepFunctions: !lowMemory)
        var warnings: [String] = []
        let outcome = try await Drawing(bundle, programs: programs, lowMemory: lowMemory, onProgress: onProgress)
            .draw(wish) { warnings.append($0) }
        try? FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try outcome.picture.write(to: file)
        return DrawnPicture(outcome: outcome, file: file, warnings: warnings)
    }
}

extension Drawing.Progress {
    /// Share of the whole, 0 to 1; the network's steps are counted as all of it.
    public var share: Double {
        switch self {
        case .reading: return 0
        case .step(let done, let all, _): return Double(done) / Double(all)
        case .decoding: return 1
        }
    }

    /// For people.
    public var text: String {
        switch self {
        case .reading: return "Reading the prompt, loading the model; the first time takes minutes"
        case .step(let done, let all, let seconds): return "Step \(done) of \(all), \(Int(seconds.rounded(.up))) s left"
        case .decoding: return "Decoding the picture"
        }
    }

    /// Progress may arrive in any order: whether this is further than `other`.
    public func isFurther(than other: Drawing.Progress) -> Bool { rank > other.rank }

    private var rank: Double {
        switch self {
        case .reading: return -1
        case .step: return share
        case .decoding: return 2
        }
    }
}
