import DQSampler

extension Pipeline.TokenizerPart {
    init(_ row: JSONObject, _ place: String) throws {
        name = try row.name(place)
        kind = try row.required("kind", place).asString("\(place): kind")
        guard ["clip", "t5"].contains(kind) else {
            throw SampleError("\(place): kind must be clip or t5, got '\(kind)'; export the bundle again")
        }
        folder = try Pipeline.path(row.required("folder", place), "\(place): folder")
        length = try row.integer("length", place, within: 3...4096)
        pad = Int64(try row.integer("pad", place, within: 0...Int(Int32.max)))
        end = Int64(try row.integer("end", place, within: 0...Int(Int32.max)))
        let isThere = try row.required("begin", place) != .null
        begin = isThere ? Int64(try row.integer("begin", place, within: 0...Int(Int32.max))) : nil
        lower = try row["lower"]?.asBool("\(place): lower") ?? false
    }
}

extension Pipeline.EncoderPart {
    /// - Parameter tokenizers: names of those that there are.
    init(_ row: JSONObject, _ place: String, tokenizers: [String]) throws {
        name = try row.name(place)
        guard ![PartProgram.decoderName, PartProgram.imageEncoderName].contains(name) else {
            throw SampleError("\(place): name must not be '\(name)', which is another part's; export the bundle again")
        }
        tokenizer = try row.required("tokenizer", place).asString("\(place): tokenizer")
        guard tokenizers.contains(tokenizer) else {
            throw SampleError("\(place): tokenizer must be one of tokenizers, got '\(tokenizer)'; export the bundle again")
        }
        program = try Pipeline.path(row.required("program", place), "\(place): program")
        takesMask = try row.required("mask", place).asBool("\(place): mask")
        outputs = try row.required("outputs", place).asArray("\(place): outputs").map { try $0.asString("\(place): outputs") }
        guard !outputs.isEmpty, Set(outputs).count == outputs.count, Set(outputs).isSubset(of: ["hidden", "pooled"]) else {
            throw SampleError("\(place): outputs must be hidden and pooled, each once, got \(outputs); export the bundle again")
        }
    }
}

extension Pipeline.DecoderPart {
    init(_ row: JSONObject, _ place: String) throws {
        program = try Pipeline.path(row.required("program", place), "\(place): program")
        channels = try row.integer("channels", place, within: 1...3)
        guard channels != 2 else { throw SampleError("\(place): channels must be 1 or 3, got 2; export the bundle again") }
        height = try row.integer("height", place, within: Pipeline.sides)
        width = try row.integer("width", place, within: Pipeline.sides)
    }
}

extension JSONObject {
    /// A list of parts, no name twice.
    func parts<Part>(
        _ key: String, _ place: String, _ name: (Part) -> String, _ read: (JSONObject, String) throws -> Part
    ) throws -> [Part] {
        let rows = try required(key, place).asArray("\(place): \(key)")
        let parts = try rows.enumerated().map { index, row in
            let here = "\(place): \(key)[\(index)]"
            return try read(row.asObject(here), here)
        }
        guard Set(parts.map(name)).count == parts.count else {
            throw SampleError("\(place): \(key) hold a name twice; export the bundle again")
        }
        return parts
    }

    fileprivate func name(_ place: String) throws -> String {
        try ExportedBundle.plain(required("name", place).asString("\(place): name"), "\(place): name")
    }

    func integer(_ key: String, _ place: String, within range: ClosedRange<Int>) throws -> Int {
        let value = try required(key, place).asInt("\(place): \(key)")
        guard range.contains(value) else {
            throw SampleError(
                "\(place): \(key) must be \(range.lowerBound)-\(range.upperBound), got \(value); export the bundle again")
        }
        return value
    }
}
