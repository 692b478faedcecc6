import DQSampler

/// Executes the text encoders of a pipeline, one after the other.
struct TextEncoders {
    let pipeline: Pipeline
    let parts: PartStore

    /// What they give of a prompt, and of the negative one.
    /// - Throws: SampleError: an encoder refuses, or gives something else than pipeline.json says.
    func encode(_ tokens: PromptTokens, zeros: Bool) async throws -> (prompt: NamedTensors, negative: NamedTensors?) {
        var prompt = masks(tokens.prompt), negative = zeros ? nil : tokens.negative.map(masks)
        for encoder in pipeline.encoders {
            let part = try await parts.take(encoder.name)
            if let given = tokens.prompt[encoder.tokenizer] {
                prompt.merge(try await execute(encoder, part, given)) { $1 }
            }
            if let given = tokens.negative?[encoder.tokenizer], negative != nil {
                negative?.merge(try await execute(encoder, part, given)) { $1 }
            }
        }
        return (prompt, negative)
    }

    private func masks(_ prompts: [String: EncodedPrompt]) -> NamedTensors {
        Dictionary(
            uniqueKeysWithValues: prompts.map { name, prompt in
                ("\(name).mask", Tensor(shape: [1, prompt.mask.count], values: prompt.mask))
            })
    }

    private func execute(_ encoder: Pipeline.EncoderPart, _ part: any Part, _ given: EncodedPrompt) async throws -> NamedTensors {
        let shape = [1, given.ids.count]
        var inputs: [String: AnyTensor] = ["ids": .integer(IntegerTensor(shape: shape, values: given.ids))]
        if encoder.takesMask { inputs["mask"] = .float(Tensor(shape: shape, values: given.mask)) }
        let answer = try await part.execute(inputs)
        var found: NamedTensors = [:]
        for output in encoder.outputs {
            let name = "\(encoder.name).\(output)", width = answer[output]?.shape.last ?? 0
            let wanted = output == "hidden" ? [1, given.ids.count, width] : [1, width]
            guard let tensor = answer[output], tensor.shape == wanted else {
                let got = answer[output].map { "\($0.shape)" } ?? "nothing"
                let text = output == "hidden" ? "(1, \(given.ids.count), width)" : "(1, width)"
                throw SampleError("\(name) is \(got), expected is \(text); export the bundle again")
            }
            try tensor.checkFinite(name)
            found[name] = tensor
        }
        return found
    }
}

/// The parts that were opened ahead of their use.
actor PartStore {
    private let programs: any Programs
    private let all: [String: PartProgram]
    private var opened: [String: any Part] = [:]

    init(_ programs: any Programs, _ all: [PartProgram]) {
        self.programs = programs
        self.all = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })
    }

    func open(_ name: String) async throws { opened[name] = try await take(name) }

    /// The part, opened now if it is not; it goes with the last reference to it.
    func take(_ name: String) async throws -> any Part {
        if let part = opened.removeValue(forKey: name) { return part }
        guard let part = all[name] else { throw SampleError("there is no part '\(name)'; export the bundle again") }
        return try await programs.open(part)
    }
}
