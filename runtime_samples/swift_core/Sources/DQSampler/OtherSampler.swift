/// A further step count or guidance scale of a bundle, for the same program.
public struct OtherSampler: Sendable {
    /// What the scheduler was asked for; the calls of the network can be more.
    public let steps: Int
    public let guidance: Double
    public let table: SamplerTable
    public let schedule: StepSchedule
    /// File of its held-out rollouts.
    public let reference: String
    /// File of the input `step_vectors` at these steps; nil where the program takes the timestep.
    public let stepVectors: String?

    static let mostSteps = 100_000, mostGuidance = 1e6

    /// - Parameters: json: an element of `samplings`. methods: of the program. groups: how many step groups it has.
    ///   takesVectors: whether it has the input `step_vectors`.
    /// - Throws: SampleError: a key is missing or of another type, or table and step groups do not fit.
    init(_ json: JSONObject, methods: [String], groups: Int, takesVectors: Bool, place: String) throws {
        steps = try Self.steps(json, place)
        guidance = try Self.guidance(json, place)
        table = try SamplerTable(json.required("table", place).asObject("\(place): table"), place: "\(place): table")
        reference = try json.required("reference", place).asString("\(place): reference")
        stepVectors = try takesVectors ? json.required("step_vectors", place).asString("\(place): step_vectors") : nil
        let listed = try StepSchedule.listed(json, place)
        guard listed.count == groups else {
            throw SampleError("\(place): \(listed.count) step groups, the program has \(groups); export the bundle again")
        }
        schedule = try StepSchedule(
            stepGroups: listed, methods: methods, calls: table.calls, place: place, mayBeEmpty: true)
    }

    static func steps(_ json: JSONObject, _ place: String) throws -> Int {
        let steps = try json.required("steps", place).asInt("\(place): steps")
        guard (1...mostSteps).contains(steps) else {
            throw SampleError("\(place): steps must be 1-\(mostSteps), got \(steps); export the bundle again")
        }
        return steps
    }

    static func guidance(_ json: JSONObject, _ place: String) throws -> Double {
        let guidance = try json.required("guidance", place).asDouble("\(place): guidance")
        guard abs(guidance) <= mostGuidance else {
            throw SampleError("\(place): guidance must be within a million, got \(guidance); export the bundle again")
        }
        return guidance
    }

    /// Whether two samplers are the same: programs in other languages hold guidance in float32.
    static func same(_ steps: Int, _ guidance: Double, _ otherSteps: Int, _ otherGuidance: Double) -> Bool {
        steps == otherSteps && abs(guidance - otherGuidance) <= 1e-6 * max(abs(guidance), abs(otherGuidance))
    }

    static func name(_ steps: Int, _ guidance: Double) -> String { "\(steps) steps, guidance \(guidance)" }
}
