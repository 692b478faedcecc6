import DQSampler
import Foundation

/// The outputs of the text encoders and the masks of the tokenizers: "text_encoder.hidden", "tokenizer.mask".
typealias NamedTensors = [String: Tensor]

/// (1, T, D), (1, D) or (1, T): the tensors of each row joined along the last axis; of three axes, rows are filled up with zeros to the
/// widest; then the rows joined along axis 1.
/// - Throws: SampleError: shapes do not fit.
func joined(_ rows: [[String]], _ tensors: NamedTensors, _ place: String) throws -> Tensor {
    let parts = try rows.map { try joinedRow($0, tensors, place) }
    let widest = parts.map { $0.shape[$0.shape.count - 1] }.max() ?? 0
    guard let axes = parts.first?.shape.count, parts.allSatisfy({ $0.shape.count == axes }) else {
        throw SampleError("\(place): rows must have as many axes each, got \(parts.map(\.shape)); export the bundle again")
    }
    if axes == 2 { return Tensor(shape: [1, parts.map { $0.shape[1] }.reduce(0, +)], values: parts.flatMap(\.values)) }
    var values: [Float] = []
    for part in parts {
        let width = part.shape[2]
        for token in 0..<part.shape[1] {
            values += part.values[token * width..<(token + 1) * width]
            values += [Float](repeating: 0, count: widest - width)
        }
    }
    return Tensor(shape: [1, parts.map { $0.shape[1] }.reduce(0, +), widest], values: values)
}

/// Along the last axis.
private func joinedRow(_ names: [String], _ tensors: NamedTensors, _ place: String) throws -> Tensor {
    let found = try names.map { name in
        guard let tensor = tensors[name] else { throw SampleError("\(place): there is no \(name); export the bundle again") }
        return tensor
    }
    guard let first = found.first, found.allSatisfy({ $0.shape.dropLast() == first.shape.dropLast() }) else {
        throw SampleError("\(place): shapes \(found.map(\.shape)) cannot be joined; export the bundle again")
    }
    let rows = first.shape.dropLast().reduce(1, *), widths = found.map { $0.shape[$0.shape.count - 1] }
    var values: [Float] = []
    for row in 0..<rows {
        for (tensor, width) in zip(found, widths) { values += tensor.values[row * width..<(row + 1) * width] }
    }
    return Tensor(shape: first.shape.dropLast() + [widths.reduce(0, +)], values: values)
}

/// What of the conditioning no prompt decides, and how all of it is put together.
struct TextConditioning: Sendable {
    private let bundle: ExportedBundle
    private let pipeline: Pipeline
    private let constants: SafetensorsFile?
    private let label: Int?

    /// - Throws: SampleError: the file of the constants is damaged.
    init(_ bundle: ExportedBundle, _ pipeline: Pipeline, label: Int?) throws {
        (self.bundle, self.pipeline, self.label) = (bundle, pipeline, label)
        constants = try pipeline.constants.map { try SafetensorsFile(bundle.folder.appendingPathComponent($0)) }
    }

    /// Every conditioning input of the network by name, batch 1.
    ///
    /// - Parameters: tensors: of a prompt; nil: what it decides is 0. side: of the constants, cond or uncond.
    /// - Throws: SampleError: something is missing or of another shape.
    func conditioning(_ tensors: NamedTensors?, side: String) throws -> [String: AnyTensor] {
        var values: [String: AnyTensor] = [:]
        for port in bundle.conditioning {
            let place = "\(Pipeline.fileName): \(port.name)", constant = "\(side).\(port.name)"
            let value: AnyTensor
            if let rows = pipeline.conditioning[port.name] {
                value = .float(try tensors.map { try joined(rows, $0, place) } ?? Tensor(zeros: port.shape))
            } else if port.name == Wish.labelInput, let label, side == "cond" {
                value = .integer(IntegerTensor(shape: [1], values: [Int64(label)]))
            } else if let constants, constants.shape(of: constant) != nil {
                value = try constants.block(constant)
                guard constants.isFinite(constant) else { throw SampleError("\(constant) holds NaN or infinity; export the bundle again") }
            } else {
                throw SampleError("\(place): there is no '\(constant)' among the constants; export the bundle again")
            }
            guard value.shape == port.shape, value.isFloat == (port.kind == .float32) else {
                throw SampleError(
                    "\(place): the network takes \(port.kind.rawValue) of shape \(port.shape), got shape \(value.shape); export the "
                        + "bundle again")
            }
            values[port.name] = value
        }
        return values
    }
}

extension AnyTensor {
    fileprivate var isFloat: Bool {
        if case .float = self { return true }
        return false
    }
}
