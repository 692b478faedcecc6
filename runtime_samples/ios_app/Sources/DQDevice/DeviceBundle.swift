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
    /// Of the picture that it can begin with; nil: it begins with noise only.
    public let imageSize: PictureSize?
    /// Why it cannot run here; nil: it can.
    public let problem: String?

    public struct PictureSize: Sendable, Hashable {
        public let height: Int
        public let width: Int
    }

    init(_ folder: URL) {
        self.folder = folder
        draws = FileManager.default.fileExists(atPath: folder.appendingPathComponent(Pipeline.fileName).path)
        imageSize = Self.imageSize(of: folder)
        do {
            let runtime = try DeviceRuntime(of: folder)
            (self.runtime, problem) = (runtime, runtime.missing?.description)
        } catch {
            (runtime, problem) = (nil, "\(error)")
        }
    }

    /// As pipeline.json says; nil where no picture can be of that size, which a drawing refuses with the reason.
    private static func imageSize(of folder: URL) -> PictureSize? {
        let file = folder.appendingPathComponent(Pipeline.fileName), key = ImageToImage.key
        guard let bytes = try? Data(contentsOf: file),
            case .object(let json)? = try? JSONReader.read(Array(bytes), name: Pipeline.fileName), case .object(let image)? = json[key],
            case .integer(let height)? = image["height"], case .integer(let width)? = image["width"],
            Pipeline.sides.contains(height), Pipeline.sides.contains(width)
        else { return nil }
        return PictureSize(height: height, width: width)
    }

    /// The folders in `folder` that hold a bundle.json, by name.
    public static func all(in folder: URL) -> [DeviceBundle] {
        let folders = try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
        return (folders ?? []).filter {
            FileManager.default.fileExists(atPath: $0.appendingPathComponent("bundle.json").path)
        }.sorted { $0.path < $1.path }.map(DeviceBundle.init)
    }
}
