import DQSampler
import Foundation

/// Answers from a recording of a whole pipeline, and checks that it is asked what was asked then: `PART.INPUT` and `PART.OUTPUT` hold
/// all executions of a part along the first axis; the network's are as ReplayNetwork reads them.
public struct ReplayPrograms: Programs {
    private let recording: SafetensorsFile

    public init(_ recording: SafetensorsFile) { self.recording = recording }

    public func open(_ part: PartProgram) throws -> any Part {
        guard FileManager.default.fileExists(atPath: part.program.path) else { throw SampleError("cannot read \(part.program.path)") }
        return ReplayPart(recording, part)
    }

    public func openNetwork(_ bundle: ExportedBundle) throws -> any Network {
        let executions = bundle.table.calls * (bundle.guidance == 1 ? 1 : 2)
        return try ReplayNetwork(recording, seeds: 1, executionsPerRollout: executions, teacherForced: false)
    }
}

actor ReplayPart: Part {
    private let recording: SafetensorsFile
    private let part: PartProgram
    private var next = 0

    init(_ recording: SafetensorsFile, _ part: PartProgram) { (self.recording, self.part) = (recording, part) }

    func execute(_ inputs: [String: AnyTensor]) throws -> [String: Tensor] {
        for port in part.inputs {
            let name = "\(part.name).\(port.name)"
            guard let given = inputs[port.name], let wanted = try? recording.block(name, at: [next]),
                Self.agree(given, wanted.reshaped([1] + wanted.shape))
            else {
                throw SampleError(
                    "\(name) of execution \(next) is not what the recording has; give the arguments of the recording, or correct the "
                        + "program")
            }
        }
        var outputs: [String: Tensor] = [:]
        for output in part.outputs where recording.shape(of: "\(part.name).\(output)") != nil {
            let tensor = try recording.floats("\(part.name).\(output)", at: [next])
            outputs[output] = tensor.reshaped([1] + tensor.shape)
        }
        next += 1
        return outputs
    }

    private static func agree(_ given: AnyTensor, _ wanted: AnyTensor) -> Bool {
        guard case .float(let one) = given, case .float(let other) = wanted else { return given == wanted }
        return one.shape == other.shape
            && zip(one.values, other.values).allSatisfy { abs($0 - $1) <= ReplayNetwork.tolerance * Swift.max(1, abs($1)) }
    }
}
