#if canImport(CoreML)
import CoreML
import DQGenerate
import DQSampler

/// One function of a program, loaded: a model, or one per chunk, each of which takes the outputs of the one before.
///
/// Unchecked, because MLModel's own word on it changed between systems: predictions of one model happen one after the
/// other here, first by whoever loads it, then by the network that was given it.
final class LoadedFunction: ProgramFunction, Part, @unchecked Sendable {
    /// What coremltools calls the function of a package that has only one; such packages are loaded without a name.
    static let only = "main"

    private let models: [MLModel]
    private let outputs: [String]

    /// Blocks until everything is loaded.
    ///
    /// - Parameter outputs: the names of what the last chunk answers; the first one is a network's.
    /// - Throws: SampleError: Core ML refuses.
    init(_ program: CompiledProgram, function: String, units: ComputeUnits, outputs: [String]) throws {
        self.outputs = outputs
        do {
            models = try program.models.map { url in
                try MLModel(contentsOf: url, configuration: Self.configuration(function, units))
            }
        } catch {
            throw SampleError(
                "Core ML cannot load function '\(function)': \(error.localizedDescription); try other --compute-units, or export "
                    + "again")
        }
    }

    static func configuration(_ function: String, _ units: ComputeUnits) -> MLModelConfiguration {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units.coreML
        if function != only { configuration.functionName = function }
        return configuration
    }

    /// Executes all chunks.
    ///
    /// - Parameter inputs: by name; each chunk takes what it declares.
    /// - Returns: the outputs of the last chunk by name, float32.
    /// - Throws: SampleError: an input is missing, or Core ML refuses.
    func execute(_ inputs: [String: AnyTensor]) throws -> [String: Tensor] {
        var values = inputs.mapValues(\.feature)
        for model in models {
            var features: [String: MLFeatureValue] = [:]
            for name in model.modelDescription.inputDescriptionsByName.keys {
                guard let value = values[name] else {
                    throw SampleError("the program wants an input '\(name)', which the bundle does not list; export again")
                }
                features[name] = value
            }
            do {
                let results = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: features))
                for name in results.featureNames { values[name] = results.featureValue(for: name) }
            } catch {
                throw SampleError("Core ML does not execute: \(error.localizedDescription); try other --compute-units")
            }
        }
        var found: [String: Tensor] = [:]
        for output in outputs {
            guard let array = values[output]?.multiArrayValue else {
                throw SampleError("the program has no output '\(output)', which the bundle lists; export again")
            }
            let shaped = MLShapedArray<Float>(converting: array)  // fp16 and strides included
            found[output] = Tensor(shape: shaped.shape, values: shaped.scalars)
        }
        return found
    }

    /// The same of a program with one output.
    func execute(_ inputs: [String: AnyTensor]) throws -> Tensor {
        let answers: [String: Tensor] = try execute(inputs)
        guard let answer = answers[outputs[0]] else { throw SampleError("the program gave nothing; export again") }
        return answer
    }
}

extension AnyTensor {
    /// Core ML has no int64 inputs; the export made them int32.
    fileprivate var feature: MLFeatureValue {
        switch self {
        case .float(let tensor):
            return MLFeatureValue(shapedArray: MLShapedArray<Float>(scalars: tensor.values, shape: tensor.shape))
        case .integer(let tensor):
            let values = tensor.values.map { Int32(clamping: $0) }
            return MLFeatureValue(shapedArray: MLShapedArray<Int32>(scalars: values, shape: tensor.shape))
        }
    }
}

extension ComputeUnits {
    var coreML: MLComputeUnits {
        switch self {
        case .all: return .all
        case .cpu: return .cpuOnly
        case .cpuAndNeuralEngine: return .cpuAndNeuralEngine
        case .cpuAndGPU: return .cpuAndGPU
        }
    }
}
#endif
