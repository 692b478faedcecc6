import DQSampler
import Foundation

/// The golden vectors, beside the packages.
public var goldenFolder: URL {
    var folder = URL(fileURLWithPath: #filePath)
    for _ in 0..<4 { folder.deleteLastPathComponent() }
    return folder.appendingPathComponent("golden", isDirectory: true)
}

/// A golden bundle whose program is made for the stand-in of a runtime instead.
public struct StandInBundle<Program: Encodable & Sendable>: Sendable {
    let golden: String
    let programs: [String: Program]
    let methods: [String]?
    let stepGroups: [[Int]]?
    let target: String
    let pipelineEdits: [String: String]

    /// - Parameters:
    ///   - golden: the case.
    ///   - programs: what is written as stand-in.json, by the path of the folder it comes into.
    ///   - methods, stepGroups: instead of the bundle's own.
    ///   - pipelineEdits: what is written in pipeline.json in the place of what.
    public init(
        _ golden: String, _ programs: [String: Program], methods: [String]? = nil, stepGroups: [[Int]]? = nil,
        target: String = "golden", pipelineEdits: [String: String] = [:]
    ) {
        (self.golden, self.programs, self.target, self.pipelineEdits) = (golden, programs, target, pipelineEdits)
        (self.methods, self.stepGroups) = (methods, stepGroups)
    }

    /// Calls `body` with a copy in a folder of its own, which goes afterwards.
    public func use(_ body: (ExportedBundle) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("dq-\(UUID().uuidString)", isDirectory: true)
        try FileManager.default.copyItem(at: goldenFolder.appendingPathComponent("\(golden)/bundle"), to: folder)
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appendingPathComponent("bundle.json")
        var bundle = try JSONReader.read(Array(try Data(contentsOf: file)), name: "bundle.json").asObject("bundle.json")
        var files = try bundle.required("files", "bundle.json").asObject("files")
        files["model.bin"] = nil
        for (path, content) in programs {
            let data = try write(content, to: folder.appendingPathComponent(path, isDirectory: true))
            files["\(path)/stand-in.json"] = .string(SHA256.of(Array(data)))
            if !path.hasPrefix("parts/") { bundle["program"] = .string(String(path.prefix { $0 != "/" })) }
        }
        if !pipelineEdits.isEmpty {
            let pipeline = folder.appendingPathComponent("pipeline.json")
            var text = try String(contentsOf: pipeline, encoding: .utf8)
            for (old, new) in pipelineEdits { text = text.replacingOccurrences(of: old, with: new) }
            try Data(text.utf8).write(to: pipeline)
            files["pipeline.json"] = .string(SHA256.of(Array(text.utf8)))
        }
        bundle["files"] = .object(files)
        bundle["target"] = .string(target)
        if let methods { bundle["methods"] = .array(methods.map(JSONValue.string)) }
        if let stepGroups { bundle["step_groups"] = .array(stepGroups.map { .array($0.map(JSONValue.integer)) }) }
        try Data(JSONValue.object(bundle).text.utf8).write(to: file)
        try await body(try ExportedBundle(folder, target: target))
    }

    /// Writes stand-in.json into a folder, which is made.
    @discardableResult
    public func write(_ content: Program, to folder: URL) throws -> Data {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let data = try JSONEncoder().encode(content)
        try data.write(to: folder.appendingPathComponent("stand-in.json"))
        return data
    }
}
