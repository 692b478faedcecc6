import Foundation

/// A file that is there whole or not at all: written under another name, flushed to the disk, renamed.
public enum WholeFile {
    /// - Parameters: option: of the command line, that names the file. body: is given a function that appends.
    /// - Throws: SampleError: it cannot be written; or what `body` throws. The temporary file is gone in both cases.
    public static func write(_ file: URL, option: String = "--report", _ body: ((Data) throws -> Void) throws -> Void) throws {
        let name = ".\(file.lastPathComponent).\(ProcessInfo.processInfo.processIdentifier).tmp"
        let temporary = file.deletingLastPathComponent().appendingPathComponent(name)
        do {
            try Data().write(to: temporary)
            defer { try? FileManager.default.removeItem(at: temporary) }
            let handle = try FileHandle(forWritingTo: temporary)
            defer { try? handle.close() }
            try body { try handle.write(contentsOf: $0) }
            try handle.synchronize()
            guard rename(temporary.path, file.path) == 0 else {
                throw SampleError("cannot rename it: \(String(cString: strerror(errno)))")
            }
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            throw SampleError("cannot write \(file.path): \(error); choose a folder with space that you may write to (\(option))")
        }
    }

    /// - Throws: SampleError: it is there and cannot be removed.
    public static func remove(_ file: URL) throws {
        guard FileManager.default.fileExists(atPath: file.path) else { return }
        do {
            try FileManager.default.removeItem(at: file)
        } catch {
            throw SampleError("cannot remove the old \(file.path): \(error); choose another folder (--report)")
        }
    }
}
