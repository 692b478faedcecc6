#if canImport(CoreML)
import CoreML
import DQSampler
import Foundation

/// The packages of a bundle, compiled for this system into folders of their own, which go with this object.
final class CompiledProgram: Sendable {
    /// One, or one per chunk in order.
    let models: [URL]
    let milliseconds: Double

    /// - Parameter program: a .mlpackage, or a folder with chunk1.mlpackage, chunk2.mlpackage, ...
    /// - Throws: SampleError: a package is missing, or Core ML refuses it.
    init(_ program: URL) async throws {
        let start = ContinuousClock.now
        var models: [URL] = []
        for package in try Self.packages(program) {
            do {
                models.append(try await MLModel.compileModel(at: package))
            } catch {
                throw SampleError(
                    "Core ML cannot compile \(package.lastPathComponent): \(error.localizedDescription); export for the system "
                        + "of this device (--ios)")
            }
        }
        self.models = models
        milliseconds = (ContinuousClock.now - start).milliseconds
    }

    deinit {
        for model in models { try? FileManager.default.removeItem(at: model) }
    }

    private static func packages(_ program: URL) throws -> [URL] {
        if program.pathExtension == "mlpackage" { return [program] }
        var packages: [URL] = []
        while true {
            let chunk = program.appendingPathComponent("chunk\(packages.count + 1).mlpackage")
            guard FileManager.default.fileExists(atPath: chunk.path) else { break }
            packages.append(chunk)
        }
        guard !packages.isEmpty else {
            throw SampleError(
                "\(program.lastPathComponent) is neither a .mlpackage nor a folder with chunk1.mlpackage; export with "
                    + "--target coreml")
        }
        return packages
    }
}
#endif
