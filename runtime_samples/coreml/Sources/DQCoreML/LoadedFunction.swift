#if canImport(CoreML)
import CoreML
import DQSampler

/// One function of a program, loaded: a model, or one per chunk, each of which takes the outputs of the one before.
///
/// Unchecked, because MLModel's own word on it changed between systems: predictions of one model happen one after the
/// other here, first by whoever loads it, then by the network that was given it.
final class LoadedFunction: ProgramFunction, @unchecked Sendable {
    /// What coremltools calls the function of a package that has only one; such packages are loaded without a name.
    static let only = "main"

    private let models: [MLModel]
    private let output: String

    /// Blocks until everything is loaded.
    ///
    /// - Parameter output: the name of what the last chunk answers.
    /// - Throws: SampleError: Core ML refuses.
    init(_ program: CompiledProgram, function: String, units: ComputeUnits, output: String) throws {
        self.output = output
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
    /// - Returns: the output of the last chunk, float32.
    /// - Throws: SampleError: an input is missing, or Core ML refuses.
    func execute(_ inputs: [String: AnyTensor]) throws -> Tensor {
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
        guard let array = values[output]?.multiArrayValue else {
            throw SampleError("the program has no output '\(output)', which the bundle lists; export again")
        }
        let shaped = MLShapedArray<Float>(converting: array)  // fp16 and strides included
        return Tensor(shape: shaped.shape, values: shaped.scalars)
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
