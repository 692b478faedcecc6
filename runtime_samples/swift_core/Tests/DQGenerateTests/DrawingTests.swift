import DQGenerate
import DQSampler
import DQTesting
import Foundation
import XCTest

/// Prompt in, picture out, with recorded parts: latents and picture are the host's.
final class DrawingTests: XCTestCase {
    private static let cases = ["guided", "noise-in-each-step", "two-encoders"]
    /// Those that begin with a picture, with the first step that runs of how many.
    private static let withPicture = ["image": (2, 4), "image-noise-in-each-step": (1, 4), "image-other-steps": (3, 6)]

    private func folder(_ name: String) -> URL { goldenFolder.appendingPathComponent("generate/\(name)", isDirectory: true) }

    private func arguments(_ name: String) throws -> GenerateArguments {
        let file = folder(name).appendingPathComponent("arguments.json")
        let words = try JSONReader.read(Array(try Data(contentsOf: file)), name: "arguments.json").asArray("").map { try $0.asString("") }
        let image = Self.withPicture[name] == nil ? [] : ["--image", "i.png"]
        return try GenerateArguments(["--bundle", "b", "--out", "o.png"] + image + words)
    }

    private func wish(_ name: String) throws -> Wish {
        var wish = try arguments(name).wish
        if Self.withPicture[name] != nil { wish.image = try picture(name) }
        return wish
    }

    /// That the recording was made with: what its encoder was given, as pixels.
    private func picture(_ name: String) throws -> Picture {
        try Picture(SafetensorsFile(folder(name).appendingPathComponent("replay.safetensors")).floats("vae_encoder.picture"))
    }

    private func bundle(_ name: String) throws -> ExportedBundle {
        let arguments = try arguments(name)
        return try ExportedBundle(folder(name).appendingPathComponent("bundle", isDirectory: true), target: nil)
            .at(steps: arguments.steps, guidance: arguments.guidance)
    }

    private func programs(_ name: String, _ counter: Counter? = nil) throws -> any Programs {
        let replay = ReplayPrograms(try SafetensorsFile(folder(name).appendingPathComponent("replay.safetensors")))
        return counter.map { CountedPrograms(programs: replay, counter: $0) } ?? replay
    }

    private func draw(_ name: String, _ wish: Wish? = nil, lowMemory: Bool = false, _ counter: Counter? = nil) async throws -> Drawing.Outcome {
        let drawing = try Drawing(bundle(name), programs: programs(name, counter), lowMemory: lowMemory)
        return try await drawing.draw(wish ?? self.wish(name))
    }

    func testLatentsAreTheHosts() async throws {
        for name in Self.cases + Self.withPicture.keys.sorted() {
            let wanted = try SafetensorsFile(folder(name).appendingPathComponent("expected/latents.safetensors")).floats("latents")
            for lowMemory in [false, true] {
                let got = try await draw(name, lowMemory: lowMemory)
                XCTAssertEqual(got.latents.shape, wanted.shape)
                for (one, other) in zip(got.latents.values, wanted.values) { XCTAssertEqual(one, other, accuracy: 1e-6 * max(1, abs(other))) }
                XCTAssertEqual([got.picture.height, got.picture.width], [12, 12])
                if let (step, steps) = Self.withPicture[name] { XCTAssertEqual([got.step, got.steps], [step, steps]) }
            }
        }
    }

    func testLowMemoryHoldsOneProgramAtATime() async throws {
        for (lowMemory, most) in [(true, 1), (false, 4)] {
            let counter = Counter()
            _ = try await draw("two-encoders", lowMemory: lowMemory, counter)
            XCTAssertEqual(counter.highest, most)
            XCTAssertEqual(counter.now, 0)
        }
    }

    func testAPictureTakesAProgramMore() async throws {
        for (lowMemory, most) in [(true, 1), (false, 4)] {
            let counter = Counter()
            _ = try await draw("image", lowMemory: lowMemory, counter)
            XCTAssertEqual(counter.highest, most)
            XCTAssertEqual(counter.now, 0)
        }
    }

    func testPicturesThatCannotBeTaken() async throws {
        let whole = try wish("image")
        var pixels = try picture("image").pixels
        pixels[7] ^= 1
        var (other, weak, small) = (whole, whole, whole)
        other.image = Picture(channels: 3, height: 12, width: 12, pixels: pixels)
        (weak.strength, small.image) = (0.2, Picture(channels: 1, height: 3, width: 12, pixels: [UInt8](repeating: 0, count: 36)))
        let wrong: [(String, Wish, String)] = [
            ("image", other, "vae_encoder.picture of execution 0 is not what the recording has"),
            ("image", weak, "--strength 0.2 leaves none of 4 steps, allowed is 0.25 or more; raise it, or take more --steps"),
            ("image", small, "--image: the picture has 12 x 3 pixels, the model takes 12 x 12; scale or crop it"),
            ("guided", whole, "--image: the bundle has no encoder of pictures; export it with --image-to-image"),
        ]
        for (name, wish, said) in wrong {
            do {
                _ = try await draw(name, wish)
                XCTFail("accepted")
            } catch let error as SampleError { XCTAssert("\(error)".contains(said), "\(error)") }
        }
    }

    func testOtherArgumentsAreNoticed() async throws {
        var seed = try wish("guided"), prompt = seed, negative = seed
        (seed.seed, prompt.prompt, negative.negativePrompt) = (8, "a photo of a red cat", "cat")
        for other in [seed, prompt, negative] {
            do {
                _ = try await draw("guided", other)
                XCTFail("accepted")
            } catch let error as SampleError { XCTAssert("\(error)".contains("record"), "\(error)") }
        }
    }

    func testWhatIsCutOffIsSaid() async throws {
        let said = Said()
        let drawing = try Drawing(bundle("two-encoders"), programs: programs("two-encoders"))
        _ = try await drawing.draw(wish("two-encoders")) { said.add($0) }
        XCTAssertEqual(said.lines.count, 2)
        XCTAssert(said.lines[1].contains("is too long for tokenizer_2: its last 10 tokens are left out: the red cat high quality"), "\(said.lines)")
    }

    func testProgressNamesEveryStep() async throws {
        let said = Said()
        let drawing = try Drawing(bundle("guided"), programs: programs("guided")) { progress in
            if case .step(let done, let all, _) = progress { said.add("\(done)/\(all)") } else { said.add("\(progress)") }
        }
        _ = try await drawing.draw(wish("guided"))
        XCTAssertEqual(said.lines, ["reading", "1/4", "2/4", "3/4", "4/4", "decoding"])
    }

    func testABundleOfANetworkAlone() throws {
        let alone = try ExportedBundle(goldenFolder.appendingPathComponent("ddim-guided/bundle", isDirectory: true), target: nil)
        XCTAssertThrowsError(try Drawing(alone, programs: programs("guided"))) { error in
            XCTAssert("\(error)".contains("holds the network alone, without text encoders and decoder"), "\(error)")
        }
    }
}

private final class Said: @unchecked Sendable {
    private let lock = NSLock()
    private var all: [String] = []
    var lines: [String] { lock.withLock { all } }
    func add(_ line: String) { lock.withLock { all.append(line) } }
}

/// How many programs are open.
private final class Counter: @unchecked Sendable {
    private let lock = NSLock()
    private(set) var now = 0
    private(set) var highest = 0

    func opened() { lock.withLock { now += 1; highest = max(highest, now) } }
    func closed() { lock.withLock { now -= 1 } }
}

private struct CountedPrograms: Programs {
    let programs: ReplayPrograms
    let counter: Counter

    func open(_ part: PartProgram) async throws -> any Part { Counted(part: try programs.open(part), counter: counter) }
    func openNetwork(_ bundle: ExportedBundle) async throws -> any Network {
        CountedNetwork(network: try programs.openNetwork(bundle), counter: counter)
    }
}

private final class Counted: Part {
    private let part: any Part
    private let counter: Counter

    init(part: any Part, counter: Counter) {
        (self.part, self.counter) = (part, counter)
        counter.opened()
    }
    deinit { counter.closed() }
    func execute(_ inputs: [String: AnyTensor]) async throws -> [String: Tensor] { try await part.execute(inputs) }
}

private final class CountedNetwork: Network {
    private let network: any Network
    private let counter: Counter

    init(network: any Network, counter: Counter) {
        (self.network, self.counter) = (network, counter)
        counter.opened()
    }
    deinit { counter.closed() }
    func execute(_ call: NetworkCall) async throws -> Tensor { try await network.execute(call) }
    func describe() async -> RuntimeDescription { await network.describe() }
}
