#if canImport(CoreAI)
import CoreAI
import DQSampler

/// One function of a program, loaded: it owns the weights and the memory for one execution.
@available(macOS 27, iOS 27, *)
struct LoadedFunction: ProgramFunction {
    private let function: InferenceFunction
    private let inputs: [String: NDArrayDescriptor]
    private let output: ExportedBundle.Port
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
        guard loaded.descriptor.outputNames.contains(program.output.name) else {
            throw SampleError("the program has no output '\(program.output.name)', which the bundle lists; export again")
        }
        (function, output, unit) = (loaded, program.output, program.unit)
    }

    /// Takes what the function declares, converted to its types; gives float32.
    /// - Throws: SampleError: a value does not fit into the declared type, or Core AI refuses. CancellationError.
    func execute(_ values: [String: AnyTensor]) async throws -> Tensor {
        var arrays: [String: NDArray] = [:]
        for (name, descriptor) in inputs {
            guard let value = values[name] else { throw SampleError("the program wants an input '\(name)', which nothing gives") }
            arrays[name] = try NDArray(value, descriptor, name)
        }
        var outputs: InferenceFunction.Outputs
        do {
            outputs = try await function.run(inputs: arrays)
        } catch {
            throw try refusal("does not execute", error, unit.advice)
        }
        guard let value = outputs.remove(output.name), let array = value.ndArray else {
            throw SampleError("the program answers without an array '\(output.name)'; export again")
        }
        return try array.tensor(output.name)
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
