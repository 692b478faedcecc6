/// Answers from a recording, and checks that it is asked what was asked then.
public actor ReplayNetwork: Network {
    /// Differences up to this, relative to numbers above 1, are rounding.
    public static let tolerance: Float = 1e-6

    private let recording: SafetensorsFile
    /// What the network is told of time: `timesteps`, or `step_vectors`.
    private let times: String
    private let executions: [Int]
    private var next = 0

    /// - Parameters:
    ///   - recording: `inputs`, `outputs` (E, C, ...) and `timesteps` (E) or `step_vectors` (E, V).
    ///   - seeds: how many are run. executionsPerRollout: N, or 2 N with guidance.
    ///   - teacherForced: whether the second half of the run happens; it is in the recording in any case.
    /// - Throws: SampleError: the recording lacks something or is too short.
    public init(_ recording: SafetensorsFile, seeds: Int, executionsPerRollout count: Int, teacherForced: Bool) throws {
        self.recording = recording
        executions = (0..<seeds).flatMap { seed in
            let first = 2 * seed * count
            return first..<first + (teacherForced ? 2 : 1) * count
        }
        times = recording.shape(of: "step_vectors") == nil ? "timesteps" : "step_vectors"
        let told = recording.shape(of: times) ?? [], length = told.first ?? 0, needed = (executions.last ?? -1) + 1
        guard let shape = recording.shape(of: "inputs"), shape.count >= 3, recording.shape(of: "outputs") == shape,
            length == shape[0], told.count == (times == "timesteps" ? 1 : 2), length >= needed
        else {
            throw SampleError(
                "the recording must hold inputs and outputs (E, C, ...) and timesteps (E) or step_vectors (E, V), E at least "
                    + "\(needed), got E = \(length); give the replay of this bundle")
        }
    }

    /// A recording has no first execution that allocates.
    public func warmUp(_ call: NetworkCall) {}

    public func execute(_ call: NetworkCall) throws -> Tensor {
        guard next < executions.count else { throw SampleError("the recording is at its end; give the replay of this bundle") }
        let execution = executions[next]
        next += 1
        try compare(call.sample.values, recording.floats("inputs", at: [execution]).values, "inputs", execution)
        let told = times == "timesteps" ? [call.timestep] : call.stepVectors?.values ?? []
        try compare(told, recording.floats(times, at: [execution]).values, times, execution)
        for (name, value) in call.conditioning where recording.shape(of: "inputs.\(name)") != nil {
            guard case .float(let tensor) = value else { continue }
            try compare(tensor.values, recording.floats("inputs.\(name)", at: [execution]).values, "inputs.\(name)", execution)
        }
        let output = try recording.floats("outputs", at: [execution])
        return output.reshaped([1] + output.shape)
    }

    public func describe() -> RuntimeDescription {
        RuntimeDescription(name: "replay of a recording", version: "1", computeUnit: "none", emulated: true)
    }

    private func compare(_ got: [Float], _ wanted: [Float], _ name: String, _ execution: Int) throws {
        let same = got.count == wanted.count && zip(got, wanted).allSatisfy { one, other in
            one == other || (one.isNaN && other.isNaN)
                || abs(one - other) <= Self.tolerance * Swift.max(1, abs(other))
        }
        guard same else {
            throw SampleError(
                "execution \(execution) was given other \(name) than recorded, allowed is a difference of \(Self.tolerance); "
                    + "give the replay of this bundle, or correct the sampler")
        }
    }
}
