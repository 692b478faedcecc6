import Foundation

public enum MLComputeUnits: Int, Sendable { case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine }

open class MLModelConfiguration {
    open var computeUnits = MLComputeUnits.all
    open var functionName: String?

    public init() {}
}

open class MLFeatureDescription {}

open class MLModelDescription {
    public let inputDescriptionsByName: [String: MLFeatureDescription]

    init(_ names: [String]) {
        inputDescriptionsByName = Dictionary(uniqueKeysWithValues: names.map { ($0, MLFeatureDescription()) })
    }
}

open class MLPredictionOptions {
    public init() {}
}

/// What a package of the stand-in says of one function.
public struct StandInFunction: Codable, Sendable {
    let inputs: [String]
    let output: String
    let factor: Float
    /// Of the output, where it is not that of the first input: the numbers begin again where they end.
    let shape: [Int]?

    public init(inputs: [String], output: String, factor: Float, shape: [Int]? = nil) {
        (self.inputs, self.output, self.factor, self.shape) = (inputs, output, factor, shape)
    }
}

struct Refusal: Error, LocalizedError {
    let errorDescription: String?
}

/// Not Sendable, as in the SDK.
open class MLModel {
    public let modelDescription: MLModelDescription
    private let function: StandInFunction

    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {
        let data = try Data(contentsOf: url.appendingPathComponent("stand-in.json"))
        let functions = try JSONDecoder().decode([String: StandInFunction].self, from: data)
        guard let function = functions[configuration.functionName ?? "main"] else {
            throw Refusal(errorDescription: "there is no such function")
        }
        self.function = function
        modelDescription = MLModelDescription(function.inputs)
        StandInLog.shared.add(configuration.functionName ?? "without a name")
    }

    open func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider {
        let values = function.inputs.compactMap { input.featureValue(for: $0)?.multiArrayValue }
        guard let first = values.first, values.count == function.inputs.count else {
            throw Refusal(errorDescription: "an input is missing")
        }
        let rest = values.dropFirst().flatMap(\.values).reduce(0, +)
        let shape = function.shape ?? first.shape
        let numbers = (0..<shape.reduce(1, *)).map { function.factor * first.values[$0 % first.values.count] + rest }
        let output = MLShapedArray<Float>(scalars: numbers, shape: shape)
        return try MLDictionaryFeatureProvider(dictionary: [function.output: MLFeatureValue(shapedArray: output)])
    }

    public func prediction(
        from input: any MLFeatureProvider, options: MLPredictionOptions = MLPredictionOptions()
    ) async throws -> any MLFeatureProvider {
        throw Refusal(errorDescription: "the stand-in executes synchronously only")
    }

    public class func compileModel(at url: URL) async throws -> URL {
        let compiled = FileManager.default.temporaryDirectory.appendingPathComponent("stand-in-\(UUID().uuidString).mlmodelc")
        try FileManager.default.copyItem(at: url, to: compiled)
        StandInLog.shared.addCompiled(compiled)
        return compiled
    }
}

/// What was loaded and compiled, for tests.
public final class StandInLog: @unchecked Sendable {
    public static let shared = StandInLog()
    private let lock = NSLock()
    private var names: [String] = []
    private var folders: [URL] = []

    func add(_ function: String) { lock.withLock { names.append(function) } }
    func addCompiled(_ folder: URL) { lock.withLock { folders.append(folder) } }

    public var loaded: [String] { lock.withLock { names } }
    public var compiled: [URL] { lock.withLock { folders } }
    public func clear() { lock.withLock { (names, folders) = ([], []) } }
}
