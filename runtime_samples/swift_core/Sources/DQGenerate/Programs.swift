import DQSampler
import Foundation

/// A text encoder, the decoder or the encoder of pictures as a program: what it is called, takes and gives.
public struct PartProgram: Sendable {
    public static let decoderName = "decoder", imageEncoderName = "vae_encoder"

    /// Of the text encoder, "decoder" or "vae_encoder".
    public let name: String
    /// File or folder.
    public let program: URL
    public let inputs: [ExportedBundle.Port]
    /// In the program's order.
    public let outputs: [String]

    public init(name: String, program: URL, inputs: [ExportedBundle.Port], outputs: [String]) {
        (self.name, self.program, self.inputs, self.outputs) = (name, program, inputs, outputs)
    }
}

/// A part, ready to execute.
public protocol Part: Sendable {
    /// - Parameter inputs: all of the part's, by name, batch 1.
    /// - Returns: the outputs by name, float32.
    /// - Throws: SampleError: the runtime refuses.
    func execute(_ inputs: [String: AnyTensor]) async throws -> [String: Tensor]
}

/// Opens the programs of a bundle: a runtime, or a recording of one. What was opened is freed with the last reference to it.
public protocol Programs: Sendable {
    /// - Throws: SampleError: the runtime refuses.
    func open(_ part: PartProgram) async throws -> any Part
    /// The network itself, for one rollout.
    func openNetwork(_ bundle: ExportedBundle) async throws -> any Network
}

extension Pipeline {
    /// - Parameter folder: the bundle's.
    func program(of encoder: EncoderPart, in folder: URL) -> PartProgram {
        let length = tokenizers.first { $0.name == encoder.tokenizer }?.length ?? 0
        let ids = ExportedBundle.Port(name: "ids", kind: .int64, shape: [1, length])
        let mask = ExportedBundle.Port(name: "mask", kind: .float32, shape: [1, length])
        return PartProgram(
            name: encoder.name, program: folder.appendingPathComponent(encoder.program),
            inputs: encoder.takesMask ? [ids, mask] : [ids], outputs: encoder.outputs)
    }

    /// - Parameter latents: their shape (1, C, h, w).
    func program(of decoder: DecoderPart, in folder: URL, latents: [Int]) -> PartProgram {
        PartProgram(
            name: PartProgram.decoderName, program: folder.appendingPathComponent(decoder.program),
            inputs: [.init(name: "latents", kind: .float32, shape: latents)], outputs: ["picture"])
    }

    func program(of image: ImageToImage, in folder: URL) -> PartProgram {
        PartProgram(
            name: PartProgram.imageEncoderName, program: folder.appendingPathComponent(image.program),
            inputs: [.init(name: "picture", kind: .float32, shape: [1, 3, image.height, image.width])], outputs: image.outputs)
    }
}

extension Tensor {
    /// - Throws: SampleError: a number is NaN or infinite.
    func checkFinite(_ what: String) throws {
        guard values.allSatisfy(\.isFinite) else {
            throw SampleError(
                "\(what) holds NaN or infinity; see what `dq-toolchain validate` says of the bundle, or try other compute units")
        }
    }
}
