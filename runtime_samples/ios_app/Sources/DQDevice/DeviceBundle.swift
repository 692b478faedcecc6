import DQGenerate
import DQSampler
import Foundation

/// A bundle that lies on this device, and what would execute it.
public struct DeviceBundle: Sendable, Hashable {
    public let folder: URL
    /// nil: see `problem`.
    public let runtime: DeviceRuntime?
    /// Whether it holds text encoders and a decoder, too.
    public let draws: Bool
    /// Why it cannot run here; nil: it can.
    public let problem: String?

    init(_ folder: URL) {
        self.folder = folder
        draws = FileManager.default.fileExists(atPath: folder.appendingPathComponent(Pipeline.fileName).path)
        do {
            let runtime = try DeviceRuntime(of: folder)
            (self.runtime, problem) = (runtime, runtime.missing?.description)
        } catch {
            (runtime, problem) = (nil, "\(error)")
        }
    }

    /// The folders in `folder` that hold a bundle.json, by name.
    public static func all(in folder: URL) -> [DeviceBundle] {
        let folders = try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
        return (folders ?? []).filter {
            FileManager.default.fileExists(atPath: $0.appendingPathComponent("bundle.json").path)
        }.sorted { $0.path < $1.path }.map(DeviceBundle.init)
    }
}
