#if canImport(CoreAI)
import CoreAI
import DQSampler

/// Between our tensors and the types and layouts that a program was lowered with.
@available(macOS 27, iOS 27, *)
extension NDArray {
    /// `value` as an array that a function takes without another copy.
    /// - Throws: SampleError: another type or shape, or an integer that does not fit.
    init(_ value: AnyTensor, _ descriptor: NDArrayDescriptor, _ name: String) throws {
        guard value.shape == descriptor.shape else {
            throw SampleError("'\(name)' has shape \(value.shape), the program wants \(descriptor.shape); export again")
        }
        self.init(descriptor: descriptor)
        switch (value, descriptor.scalarType) {
        case (.float(let tensor), .float32): write(tensor.values)
        #if !((os(macOS) || targetEnvironment(macCatalyst)) && arch(x86_64))
        case (.float(let tensor), .float16): write(tensor.values.map { Float16($0) })
        #endif
        case (.integer(let tensor), .int64): write(tensor.values)
        case (.integer(let tensor), .int32):
            write(
                try tensor.values.map { value in
                    guard let narrow = Int32(exactly: value) else {
                        throw SampleError("'\(name)' holds \(value), the program takes int32; correct that input, export again")
                    }
                    return narrow
                })
        default:
            throw SampleError("the program wants '\(name)' as \(descriptor.scalarType), which is not made here; export again")
        }
    }

    /// Float32, row-major.
    /// - Throws: SampleError: another type.
    func tensor(_ name: String) throws -> Tensor {
        switch scalarType {
        case .float32: return Tensor(shape: shape, values: read { (value: Float) in value })
        #if !((os(macOS) || targetEnvironment(macCatalyst)) && arch(x86_64))
        case .float16: return Tensor(shape: shape, values: read { (value: Float16) in Float(value) })
        #endif
        default: throw SampleError("the program answers '\(name)' as \(scalarType), allowed are float16 and float32; export again")
        }
    }

    private mutating func write<Scalar: BitwiseCopyable>(_ values: [Scalar]) {
        let layout = ArrayLayout(self), view = mutableView(as: Scalar.self)
        view.withUnsafeMutablePointer { pointer, _, _ in
            var next = values.startIndex
            layout.forEach { offset in
                pointer[offset] = values[next]
                next += 1
            }
        }
    }

    private func read<Scalar: BitwiseCopyable>(_ convert: (Scalar) -> Float) -> [Float] {
        let layout = ArrayLayout(self), count = shape.reduce(1, *)
        return view(as: Scalar.self).withUnsafePointer { pointer, _, _ in
            var values: [Float] = []
            values.reserveCapacity(count)
            layout.forEach { values.append(convert(pointer[$0])) }
            return values
        }
    }
}
#endif
