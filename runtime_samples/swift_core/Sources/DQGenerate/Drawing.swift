import DQSampler
import Foundation

/// Prompt in, picture out: text encoders, the sampler from the seed's noise or from a picture, decoder.
public struct Drawing: Sendable {
    /// How far a picture is.
    public enum Progress: Sendable, Equatable {
        case reading
        /// Steps done, all of them, and the seconds that the rest will take, from the mean so far.
        case step(Int, of: Int, secondsLeft: Double)
        case decoding
    }

    /// Called from wherever the drawing happens.
    public typealias OnProgress = @Sendable (Progress) -> Void

    public struct Outcome: Sendable {
        public let picture: Picture
        /// (1, C, h, w), as the sampler leaves them.
        public let latents: Tensor
        public let seconds: Double
        /// Of them, in the network, with loading it.
        public let networkSeconds: Double
        /// The first step that ran, of so many: 0 but where a picture takes the place of the steps before.
        public let step: Int
        public let steps: Int
    }

    private let bundle: ExportedBundle
    private let pipeline: Pipeline
    private let programs: any Programs
    private let parts: PartStore
    private let lowMemory: Bool
    private let onProgress: OnProgress

    /// - Parameters:
    ///   - bundle: at the step count and guidance that are wanted.
    ///   - lowMemory: text encoders, network and decoder are loaded one after the other; otherwise all at first, so that the
    ///     faults of any show before the long wait.
    /// - Throws: SampleError: the bundle holds the network alone, or is damaged.
    public init(
        _ bundle: ExportedBundle, programs: any Programs, lowMemory: Bool = false, onProgress: @escaping OnProgress = { _ in }
    ) throws {
        pipeline = try Pipeline(bundle)
        (self.bundle, self.programs, self.lowMemory, self.onProgress) = (bundle, programs, lowMemory, onProgress)
        var all = pipeline.encoders.map { [pipeline] in pipeline.program(of: $0, in: bundle.folder) }
        if let decoder = pipeline.decoder { all.append(pipeline.program(of: decoder, in: bundle.folder, latents: bundle.output.shape)) }
        if let image = pipeline.image { all.append(pipeline.program(of: image, in: bundle.folder)) }
        parts = PartStore(programs, all)
    }

    /// - Parameter warn: is told what of a prompt is left out.
    /// - Throws: SampleError: the pipeline cannot fulfil the wish, or a runtime refuses. CancellationError: the task was cancelled.
    public func draw(_ wish: Wish, warn: (String) -> Void = { _ in }) async throws -> Outcome {
        let start = ContinuousClock.now
        let takesLabel = bundle.conditioning.contains { $0.name == Wish.labelInput }
        try wish.check(takesText: !pipeline.encoders.isEmpty, takesLabel: takesLabel)
        let begin = try beginning(wish), run = begin?.rest ?? bundle
        onProgress(.reading)
        let isGuided = bundle.guidance != 1
        let tokens = try PromptTokens(wish, pipeline, folder: bundle.folder, isGuided: isGuided, warn: warn)
        var network = try await openAll(run, withImage: begin != nil)
        let conditions = try await self.conditions(tokens, wish, isGuided: isGuided)
        var generator = TorchGenerator(seed: wish.seed)
        let first = try await firstLatents(wish, begin, &generator)
        let networkStart = ContinuousClock.now
        if network == nil { network = try await programs.openNetwork(run) }
        let latents = try await sample(run, network, conditions, first, &generator)
        network = nil  // before the decoder comes
        let networkSeconds = (ContinuousClock.now - networkStart).milliseconds / 1000
        onProgress(.decoding)
        let picture = try Picture(try await decoded(latents))
        let seconds = (ContinuousClock.now - start).milliseconds / 1000
        return Outcome(
            picture: picture, latents: latents, seconds: seconds, networkSeconds: networkSeconds, step: begin?.step ?? 0,
            steps: begin?.steps ?? bundle.steps ?? bundle.table.calls)
    }

    /// The size of the picture that a wish may hold.
    /// - Throws: SampleError: the bundle cannot begin with a picture.
    public func imageSize() throws -> (height: Int, width: Int) {
        let image = try imageToImage()
        return (image.height, image.width)
    }

    private func imageToImage() throws -> ImageToImage {
        guard let image = pipeline.image else {
            throw SampleError("--image: the bundle has no encoder of pictures; export it with --image-to-image, or leave --image out")
        }
        return image
    }

    /// nil: with noise.
    private func beginning(_ wish: Wish) throws -> Beginning? {
        guard let picture = wish.image else { return nil }
        let image = try imageToImage()
        guard picture.height == image.height, picture.width == image.width else {
            throw SampleError(
                "--image: the picture has \(picture.width) x \(picture.height) pixels, the model takes \(image.width) x \(image.height); "
                    + "scale or crop it")
        }
        return try Beginning(image, wish.strength, bundle)
    }

    /// The network, with all parts opened; nil with low memory, and nothing opened.
    private func openAll(_ run: ExportedBundle, withImage: Bool) async throws -> (any Network)? {
        guard !lowMemory else { return nil }
        for encoder in pipeline.encoders { try await parts.open(encoder.name) }
        if withImage { try await parts.open(PartProgram.imageEncoderName) }
        let network = try await programs.openNetwork(run)
        if pipeline.decoder != nil { try await parts.open(PartProgram.decoderName) }
        return network
    }

    private func conditions(_ tokens: PromptTokens, _ wish: Wish, isGuided: Bool) async throws -> Conditions {
        let text = try TextConditioning(bundle, pipeline, label: wish.label)
        let zeros = pipeline.zerosWithoutNegative && wish.negativePrompt.isEmpty
        let (prompt, negative) = try await TextEncoders(pipeline: pipeline, parts: parts).encode(tokens, zeros: zeros)
        return Conditions(
            conditional: try text.conditioning(prompt, side: "cond"),
            unconditional: isGuided ? try text.conditioning(negative, side: "uncond") : nil)
    }

    /// (C, h, w) that the sampler begins with: noise, or the latent of a picture with noise.
    private func firstLatents(_ wish: Wish, _ begin: Beginning?, _ generator: inout TorchGenerator) async throws -> Tensor {
        let shape = Array(bundle.output.shape.dropFirst())
        guard let begin, let picture = wish.image else {
            guard let scale = bundle.table.startScale else {
                throw SampleError("bundle.json: table has no init_noise_sigma, without which no noise can be made; export the bundle again")
            }
            return generator.normal(shape).scaled(by: scale)
        }
        let answers = try await encoded(picture)
        var latent = answers[0]
        if answers.count == 2 {  // it is drawn from mean and deviation
            let drawn = generator.normal(shape)
            for index in latent.values.indices { latent.values[index] += answers[1].values[index] * drawn.values[index] }
        }
        var x = latent.scaled(by: begin.start.signal)
        x.add(begin.start.noise, times: generator.normal(shape))
        return x
    }

    /// Mean, and deviation if there is one, of the latent of a picture; (C, h, w).
    private func encoded(_ picture: Picture) async throws -> [Tensor] {
        let part = try await parts.take(PartProgram.imageEncoderName), answer = try await part.execute(["picture": .float(picture.tensor)])
        return try imageToImage().outputs.map { name in
            guard let tensor = answer[name], tensor.shape == bundle.output.shape else {
                let got = answer[name].map { "\($0.shape)" } ?? "nothing"
                throw SampleError("the encoder of pictures gave \(got), expected is \(bundle.output.shape); export the bundle again")
            }
            try tensor.checkFinite("the encoded picture")
            return tensor.reshaped(Array(bundle.output.shape.dropFirst()))
        }
    }

    /// (1, C, h, w) after all steps.
    private func sample(
        _ bundle: ExportedBundle, _ network: (any Network)?, _ conditions: Conditions, _ first: Tensor, _ generator: inout TorchGenerator
    ) async throws -> Tensor {
        guard let network else { throw SampleError("there is no network; open it first") }
        let denoiser = try Denoiser(bundle, network), table = bundle.table, shape = Array(bundle.output.shape.dropFirst())
        var outputs: [Tensor] = [], latents = [first]
        let start = ContinuousClock.now
        for k in 0..<table.calls {
            let answer = try await denoiser.answer(latents[k], k, conditions)
            try answer.output.checkFinite("the network's answer in step \(k)")
            outputs.append(answer.output)
            // One for every step, as diffusers draws them; a sampler that never adds noise draws none.
            let noise = table.addsNoise ? generator.normal(shape) : nil
            latents.append(table.advance(k, latents: latents, outputs: outputs, noise: noise))
            let done = k + 1, mean = (ContinuousClock.now - start).milliseconds / 1000 / Double(done)
            onProgress(.step(done, of: table.calls, secondsLeft: mean * Double(table.calls - done)))
        }
        return latents[table.calls].reshaped(bundle.output.shape)
    }

    /// (1, 1 or 3, H, W), about -1 to 1.
    private func decoded(_ latents: Tensor) async throws -> Tensor {
        guard let decoder = pipeline.decoder else { return latents }
        let answer = try await parts.take(PartProgram.decoderName).execute(["latents": .float(latents)])
        let wanted = [1, decoder.channels, decoder.height, decoder.width]
        guard let picture = answer["picture"], picture.shape == wanted else {
            let got = answer["picture"].map { "\($0.shape)" } ?? "nothing"
            throw SampleError("the decoder gave \(got), expected is \(wanted); export the bundle again")
        }
        return picture
    }
}
