import CoreML
import DQSampler
import Foundation

/// A golden bundle whose program is packages of the stand-in instead.
///
/// - Parameters: packages: functions by name, by path of the package. methods: instead of the bundle's own.
func withBundle(
    _ golden: String, _ packages: [String: [String: StandInFunction]], methods: [String]? = nil,
    _ body: (ExportedBundle) async throws -> Void
) async throws {
    let vectors = ProcessInfo.processInfo.environment["DQ_GOLDEN"] ?? "../golden"
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("dq-\(UUID().uuidString)", isDirectory: true)
    try FileManager.default.copyItem(at: URL(fileURLWithPath: "\(vectors)/\(golden)/bundle"), to: folder)
    defer { try? FileManager.default.removeItem(at: folder) }
    let file = folder.appendingPathComponent("bundle.json")
    var bundle = try JSONReader.read(Array(try Data(contentsOf: file)), name: "bundle.json").asObject("bundle.json")
    var files = try bundle.required("files", "bundle.json").asObject("files")
    files["model.bin"] = nil
    for (path, functions) in packages {
        let package = folder.appendingPathComponent(path, isDirectory: true)
        try FileManager.default.createDirectory(at: package, withIntermediateDirectories: true)
        let data = try JSONEncoder().encode(functions)
        try data.write(to: package.appendingPathComponent("stand-in.json"))
        files["\(path)/stand-in.json"] = .string(SHA256.of(Array(data)))
        bundle["program"] = .string(String(path.prefix { $0 != "/" }))
    }
    bundle["files"] = .object(files)
    if let methods { bundle["methods"] = .array(methods.map(JSONValue.string)) }
    try Data(JSONValue.object(bundle).text.utf8).write(to: file)
    try await body(try ExportedBundle(folder, target: "golden"))
}
