import DQSampler
import Foundation

/// `image_to_image` of pipeline.json: the encoder of pictures (1, 3, height, width) in [-1, 1], and where a run can begin with one.
public struct ImageToImage: Sendable, Equatable {
    public static let key = "image_to_image"

    /// One step that a run can begin at: x = signal * picture + noise * noise of variance 1.
    public struct Start: Sendable, Equatable {
        /// Of the network, that the run begins with.
        public let call: Int
        public let signal: Float
        public let noise: Float
        /// Of the remaining calls; nil: the tail of the whole table.
        public let table: SamplerTable?
    }

    public let program: String
    public let height: Int
    public let width: Int
    /// mean, and deviation where a latent is drawn from both.
    public let outputs: [String]
    /// Where steps times strength is no whole number, the first step is the later one.
    public let roundsUp: Bool
    /// By step count one for each step, the noisiest first.
    public let starts: [Int: [Start]]

    /// - Throws: SampleError: a key is missing or of another kind.
    init(_ json: JSONObject, _ place: String) throws {
        program = try Pipeline.path(json.required("program", place), "\(place): program")
        _ = try json.integer("channels", place, within: 3...3)
        height = try json.integer("height", place, within: Pipeline.sides)
        width = try json.integer("width", place, within: Pipeline.sides)
        outputs = try json.required("outputs", place).asArray("\(place): outputs").map { try $0.asString("\(place): outputs") }
        guard outputs == ["mean"] || outputs == ["mean", "deviation"] else {
            throw SampleError("\(place): outputs must be mean, or mean and deviation, got \(outputs); export the bundle again")
        }
        let rounds = try json.required("start_rounds", place).asString("\(place): start_rounds")
        guard ["up", "down"].contains(rounds) else {
            throw SampleError("\(place): start_rounds must be up or down, got '\(rounds)'; export the bundle again")
        }
        roundsUp = rounds == "up"
        let listed = try json.required("starts", place).asObject("\(place): starts")
        var starts: [Int: [Start]] = [:]
        for key in listed.keys {
            let here = "\(place): starts[\(key)]"
            guard let count = Int(key), String(count) == key, (1...100_000).contains(count) else {
                throw SampleError("\(place): starts must be by step count, got '\(key.prefix(40))'; export the bundle again")
            }
            let rows = try listed.required(key, here).asArray(here).map { try Start($0.asObject(here), here) }
            guard rows.count == count else {
                throw SampleError("\(here) must hold one for each of \(count) steps, got \(rows.count); export the bundle again")
            }
            starts[count] = rows
        }
        guard !starts.isEmpty else { throw SampleError("\(place): starts must not be empty; export the bundle again") }
        self.starts = starts
    }

    /// The first of `steps` that a run of this strength executes, in float64 as diffusers' pipelines reckon; `steps` if none is left.
    public static func firstStep(_ strength: Double, steps: Int, roundsUp: Bool) -> Int {
        let all = Double(steps)
        return Int(roundsUp ? all - min((all * strength).rounded(.down), all) : (all - min(all * strength, all)).rounded(.down))
    }
}

extension ImageToImage.Start {
    init(_ row: JSONObject, _ place: String) throws {
        call = try row.integer("call", place, within: 0...1_000_000)
        let numbers = try ["signal", "noise"].map { Float(try row.required($0, place).asDouble("\(place): \($0)")) }
        guard numbers.allSatisfy(\.isFinite) else {
            throw SampleError("\(place): signal and noise must be finite in float32, got \(numbers); export the bundle again")
        }
        (signal, noise) = (numbers[0], numbers[1])
        let table = try row.required("table", place)
        self.table = try table == .null ? nil : SamplerTable(table.asObject("\(place): table"), place: "\(place): table")
    }
}

/// Where a run begins that begins with a picture.
struct Beginning: Sendable {
    let start: ImageToImage.Start
    /// The first of so many.
    let step: Int
    let steps: Int
    /// The bundle with the network calls that are left.
    let rest: ExportedBundle

    /// - Parameters: strength: in (0, 1]. bundle: at the step count that is wanted.
    /// - Throws: SampleError: no step is left, or the starts are not those of the bundle.
    init(_ image: ImageToImage, _ strength: Double, _ bundle: ExportedBundle) throws {
        let starts = try Self.starts(image, bundle.steps)
        steps = starts.count
        step = try Self.step(strength, steps, image.roundsUp)
        start = starts[step]
        rest = try bundle.remaining(from: start.call, table: start.table)
    }

    /// - Parameter steps: nil: the only count there is.
    private static func starts(_ image: ImageToImage, _ steps: Int?) throws -> [ImageToImage.Start] {
        if steps == nil, image.starts.count == 1, let only = image.starts.values.first { return only }
        if let steps, let found = image.starts[steps] { return found }
        let held = image.starts.keys.sorted().map(String.init).joined(separator: ", ")
        throw SampleError(
            "--image: there are no starts with a picture for \(steps.map { "\($0) steps" } ?? "this sampler"), but for \(held); choose of "
                + "these (--steps)")
    }

    private static func step(_ strength: Double, _ steps: Int, _ roundsUp: Bool) throws -> Int {
        let step = ImageToImage.firstStep(strength, steps: steps, roundsUp: roundsUp)
        guard step == steps else { return step }
        let least = (1...1000).first { ImageToImage.firstStep(Double($0) / 1000, steps: steps, roundsUp: roundsUp) < steps } ?? 1000
        func short(_ number: Double) -> String { String(format: "%g", number) }
        throw SampleError(
            "--strength \(short(strength)) leaves none of \(steps) steps, allowed is \(short(Double(least) / 1000)) or more; raise it, or "
                + "take more --steps")
    }
}
