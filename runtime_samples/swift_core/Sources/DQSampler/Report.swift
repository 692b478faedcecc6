import Foundation

/// The device report: report.safetensors first, then report.json, so that one that can be read is complete.
public struct Report: Sendable {
    public static let jsonName = "report.json"
    public static let tensorsName = "report.safetensors"

    public let figures: Figures
    public let result: Run.Result
    public let runtime: RuntimeDescription
    private let bundle: ExportedBundle
    private let machine: Machine

    /// - Throws: SampleError: the reference is damaged.
    public init(
        bundle: ExportedBundle, reference: Reference, result: Run.Result, runtime: RuntimeDescription,
        machine: Machine = .current
    ) throws {
        (self.bundle, self.result, self.runtime, self.machine) = (bundle, result, runtime, machine)
        figures = try Figures(latents: result.latents, reference: reference)
    }

    /// Writes both files into `folder`, which is made if it is not there.
    /// - Throws: SampleError: the folder cannot be written. There is no report.json then.
    public func write(to folder: URL) throws {
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        } catch {
            throw SampleError("cannot make the folder \(folder.path): \(error); choose another (--report)")
        }
        let json = folder.appendingPathComponent(Self.jsonName), tensors = folder.appendingPathComponent(Self.tensorsName)
        try WholeFile.remove(json)
        var content = [(name: "latents", tensor: result.latents)]
        if let outputs = result.outputsAtSimulation { content.append(("outputs_at_simulation", outputs)) }
        try WholeFile.write(tensors) { try SafetensorsWriter(content).write($0) }
        let text = JSONValue.object(try header(folder: folder, tensors: try SHA256.of(file: tensors))).text
        try WholeFile.write(json) { try $0(Data(text.utf8)) }
    }

    private func header(folder: URL, tensors: String) throws -> JSONObject {
        func time(_ milliseconds: Double?) -> JSONValue { runtime.emulated ? .null : .figure(milliseconds) }
        var versions: JSONObject = ["system": .string(machine.system), "architecture": .string(machine.architecture)]
        for (name, version) in runtime.versions.sorted(by: { $0.key < $1.key }) { versions[name] = .string(version) }
        var report: JSONObject = [
            "schema": .string("dq-toolchain/report"), "schema_version": .integer(1), "target": .string(bundle.target),
            "runtime": .object(["name": .string(runtime.name), "version": .string(runtime.version)]),
            "device": .string(machine.model), "versions": .object(versions), "compute_unit": .string(runtime.computeUnit),
            "bundle": .string(relativePath(from: folder, to: bundle.folder)),
            "bundle_sha256": .string(bundle.sha256), "load_ms": time(runtime.loadMilliseconds),
            "step_ms": .array(result.stepMilliseconds.map(time)),
            "peak_memory_bytes": machine.peakMemory().map(JSONValue.integer) ?? .null,
            "emulated": .bool(runtime.emulated), "files": .object([Self.tensorsName: .string(tensors)]),
        ]
        if !bundle.samplers.isEmpty, let steps = bundle.steps {
            report["steps"] = .integer(steps)
            report["guidance"] = .number(bundle.guidance)
        }
        if let compile = runtime.compileMilliseconds { report["compile_ms"] = time(compile) }
        let figures = figures.json
        for key in figures.keys { report[key] = figures[key] }
        return report
    }
}

/// The way from one folder to another, both there; "." if they are the same.
func relativePath(from start: URL, to end: URL) -> String {
    let from = start.resolvingSymlinksInPath().standardizedFileURL.pathComponents
    let to = end.resolvingSymlinksInPath().standardizedFileURL.pathComponents
    let common = zip(from, to).prefix { $0 == $1 }.count
    let parts = Array(repeating: "..", count: from.count - common) + to[common...]
    return parts.isEmpty ? "." : parts.joined(separator: "/")
}
