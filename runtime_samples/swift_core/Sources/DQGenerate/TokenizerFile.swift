import DQSampler

/// Reads the parts of tokenizer.json. `place`: the file, for errors.
enum TokenizerFile {
    /// By token.
    static func vocabulary(_ model: JSONObject, _ place: String) throws -> [String: Int64] {
        let here = "\(place): vocab", rows = try model.required("vocab", place).asObject(here)
        var found: [String: Int64] = [:]
        found.reserveCapacity(rows.keys.count)
        for token in rows.keys {
            let id = try rows.required(token, here).asInt(here)
            guard (0...Int(Int32.max)).contains(id) else {
                throw SampleError("\(here): the id of '\(token)' must be 0 to 2147483647, got \(id); export the bundle again")
            }
            found[token] = Int64(id)
        }
        return found
    }

    /// Each two tokens, as a list or with a space between.
    static func merges(_ model: JSONObject, _ place: String) throws -> [(String, String)] {
        let here = "\(place): merges"
        return try model.required("merges", place).asArray(here).map { row in
            let parts: [String]
            if case .string(let text) = row {
                parts = text.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
            } else {
                parts = try row.asArray(here).map { try $0.asString(here) }
            }
            guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else {
                throw SampleError("\(here): a merge must be two tokens, got \(parts.count); export the bundle again")
            }
            return (parts[0], parts[1])
        }
    }

    /// The steps of a sequence, which must be as many as are known here.
    static func steps(_ json: JSONObject, _ key: String, _ list: String, count: Int, _ place: String) throws -> [JSONObject] {
        let here = "\(place): \(key)", object = try json.required(key, place).asObject(here)
        let steps = try object.required(list, here).asArray(here).map { try $0.asObject(here) }
        guard steps.count == count else { throw other("\(here): \(list)", "\(count) steps", "\(steps.count)") }
        return steps
    }

    static func expect(_ object: JSONObject, _ key: String, _ wanted: String, _ place: String) throws {
        let found = try object.required(key, place).asString("\(place): \(key)")
        guard found == wanted else { throw other("\(place): \(key)", "'\(wanted)'", "'\(found)'") }
    }

    static func expectPattern(_ object: JSONObject, _ wanted: String, _ place: String) throws {
        try expect(object.required("pattern", place).asObject("\(place): pattern"), "Regex", wanted, place)
    }

    private static func other(_ what: String, _ wanted: String, _ found: String) -> SampleError {
        SampleError("\(what) must be \(wanted), got \(found): another kind of tokenizer, which is not supported; export another model")
    }
}
