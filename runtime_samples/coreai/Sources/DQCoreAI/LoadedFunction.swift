#if canImport(CoreAI)
import CoreAI
import DQGenerate
import DQSampler

/// One function of a program, loaded: it owns the weights and the memory for one execution.
@available(macOS 27, iOS 27, *)
struct LoadedFunction: ProgramFunction, Part {
    /// What the function of a program that has only one is called.
    static let only = "main"

    private let function: InferenceFunction
    private let inputs: [String: NDArrayDescriptor]
    private let outputs: [String]
    private let unit: ComputeUnit

    /// Blocks until everything is loaded.
    /// - Throws: SampleError: there is no such function, it takes or gives something else than the bundle says, or Core AI refuses.
    init(_ program: SpecializedProgram, _ name: String) throws {
        let found: InferenceFunction?
        do {
            found = try program.model.loadFunction(named: name)
        } catch {
            throw try refusal("cannot load function '\(name)' for: \(program.unit.name)", error, program.unit.advice)
        }
        guard let loaded = found else {
            let names = program.model.functionNames.sorted().joined(separator: ", ")
            throw SampleError("\(program.name) has no function '\(name)', only \(names); export again")
        }
        inputs = try Self.inputs(loaded.descriptor, program.inputs)
        if let absent = program.outputs.first(where: { !loaded.descriptor.outputNames.contains($0) }) {
            throw SampleError("the program has no output '\(absent)', which the bundle lists; export again")
        }
        (function, outputs, unit) = (loaded, program.outputs, program.unit)
    }

    /// Takes what the function declares, converted to its types; gives float32.
    /// - Throws: SampleError: a value does not fit into the declared type, or Core AI refuses. CancellationError.
    func execute(_ values: [String: AnyTensor]) async throws -> [String: Tensor] {
        var arrays: [String: NDArray] = [:]
        for (name, descriptor) in inputs {
            guard let value = values[name] else { throw SampleError("the program wants an input '\(name)', which nothing gives") }
            arrays[name] = try NDArray(value, descriptor, name)
        }
        var answers: InferenceFunction.Outputs
        do {
            answers = try await function.run(inputs: arrays)
        } catch {
            throw try refusal("does not execute", error, unit.advice)
        }
        var found: [String: Tensor] = [:]
        for output in outputs {
            guard let value = answers.remove(output), let array = value.ndArray else {
                throw SampleError("the program answers without an array '\(output)'; export again")
            }
            found[output] = try array.tensor(output)
        }
        return found
    }

    /// The same of a program with one output.
    func execute(_ values: [String: AnyTensor]) async throws -> Tensor {
        let answers: [String: Tensor] = try await execute(values)
        guard let answer = answers[outputs[0]] else { throw SampleError("the program gave nothing; export again") }
        return answer
    }

    /// The descriptors by name, compared with what the bundle says of them.
    private static func inputs(
        _ function: InferenceFunctionDescriptor, _ ports: [ExportedBundle.Port]
    ) throws -> [String: NDArrayDescriptor] {
        if let name = function.inputNames.first(where: { name in !ports.contains { $0.name == name } }) {
            throw SampleError("the program wants an input '\(name)', which the bundle does not list; export again")
        }
        var inputs: [String: NDArrayDescriptor] = [:]
        for port in ports {
            guard let value = function.inputDescriptor(of: port.name) else {
                throw SampleError("the program has no input '\(port.name)', which the bundle lists; export again")
            }
            guard case .ndArray(let descriptor) = value else {
                throw SampleError("the program takes '\(port.name)' as a picture, the bundle says an array; export again")
            }
            guard descriptor.shape == port.shape else {
                throw SampleError(
                    "the program wants '\(port.name)' of shape \(descriptor.shape), the bundle says \(port.shape); export again")
            }
            inputs[port.name] = descriptor
        }
        return inputs
    }
}
#endif
