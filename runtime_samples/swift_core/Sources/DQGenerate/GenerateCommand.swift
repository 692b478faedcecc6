import DQSampler
import Foundation

/// What the programs share of `generate`: the first word chooses it.
public enum GenerateCommand {
    public static let name = "generate"

    /// The arguments behind "generate"; nil: another command was given.
    public static var arguments: [String]? {
        let words = CommandLine.arguments.dropFirst()
        return words.first == name ? Array(words.dropFirst()) : nil
    }

    /// Draws; 0 when the picture is written, 2 and one line on stderr when something refuses.
    ///
    /// - Parameters:
    ///   - target: the only one accepted; nil takes any.
    ///   - open: what executes the programs of a bundle.
    public static func run(
        _ program: String, _ words: [String], target: String?, options: [Arguments.Option] = [],
        open: @Sendable (GenerateArguments) throws -> any Programs
    ) async -> Int32 {
        let program = "\(program) \(name)"
        if words.contains("--help") || words.contains("-h") {
            print(GenerateArguments.usage(program, options))
            return 0
        }
        do {
            let arguments = try GenerateArguments(words, options: options)
            let line = try await draw(arguments, target: target, programs: open(arguments)) {
                Command.say("\(program): warning: \(SampleError($0))")
            }
            print(line)
            return 0
        } catch {
            Command.say("\(program): \((error as? SampleError) ?? SampleError("\(error)"))")
            return 2
        }
    }

    /// Writes the picture; a line that says what was done.
    static func draw(
        _ arguments: GenerateArguments, target: String?, programs: any Programs, warn: (String) -> Void
    ) async throws -> String {
        let bundle = try ExportedBundle(arguments.bundle, target: target).at(steps: arguments.steps, guidance: arguments.guidance)
        let drawing = try Drawing(bundle, programs: programs, lowMemory: arguments.lowMemory, onProgress: showProgress)
        var wish = arguments.wish
        if let file = arguments.image {
            let size = try drawing.imageSize()
            wish.image = try Picture(png: file, height: size.height, width: size.width)
        }
        let outcome = try await drawing.draw(wish, warn: warn)
        if let file = arguments.latents {
            try WholeFile.write(file, option: "--latents") { try SafetensorsWriter([("latents", outcome.latents)]).write($0) }
        }
        try outcome.picture.write(to: arguments.out)
        let (picture, memory) = (outcome.picture, (Machine.current.peakMemory() ?? 0) >> 20)
        func short(_ seconds: Double) -> String { String(format: "%.1f s", seconds) }
        let ran = outcome.step == 0 ? "" : "\(outcome.steps - outcome.step) of "
        return "\(arguments.out.path): \(picture.width) x \(picture.height), \(ran)\(outcome.steps) steps, guidance "
            + "\(bundle.guidance), seed \(arguments.wish.seed); \(short(outcome.seconds)), of them \(short(outcome.networkSeconds)) in the "
            + "network; peak memory \(memory) MiB"
    }

    /// One line that is written over, on a terminal; silent elsewhere.
    private static let showProgress: Drawing.OnProgress = { progress in
        guard isatty(FileHandle.standardError.fileDescriptor) == 1 else { return }
        let text: String
        switch progress {
        case .reading: text = "reading the prompt"
        case .step(let done, let all, let seconds):
            let left = Int(seconds.rounded(.up))
            text = "\(done) of \(all) steps, \(left / 60) min \(left % 60) s left"
        case .decoding: text = "decoding the picture"
        }
        FileHandle.standardError.write(Data("\r\u{1B}[K\(text)\(progress == .decoding ? "\n" : "")".utf8))
    }
}
