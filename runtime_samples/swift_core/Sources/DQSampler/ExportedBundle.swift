import Foundation

/// An exported bundle as far as a device needs it; every file in it has been compared with its SHA-256.
public struct ExportedBundle: Sendable {
    /// An input or output of the lowered program, batch 1.
    public struct Port: Sendable, Equatable {
        public enum Kind: String, Sendable {
            case float32, int64
        }

        public let name: String
        public let kind: Kind
        public let shape: [Int]

        public init(name: String, kind: Kind, shape: [Int]) { (self.name, self.kind, self.shape) = (name, kind, shape) }
    }

    public let folder: URL
    /// SHA-256 of bundle.json itself.
    public let sha256: String
    public let target: String
    /// File or folder of the lowered model.
    public let program: URL
    public let inputs: [Port]
    public let output: Port
    public private(set) var schedule: StepSchedule
    public private(set) var table: SamplerTable
    /// 1: one execution per step. Otherwise two, combined with this weight.
    public private(set) var guidance: Double
    /// What the scheduler was asked for; nil where the bundle holds one sampler only.
    public private(set) var steps: Int?
    /// File of the held-out rollouts of `table`.
    public private(set) var referenceName = "reference.safetensors"
    /// File of the step vectors of `table`, where the program takes them.
    private var stepVectorsName = "step_vectors.safetensors"
    /// What was left out of the calls before `table`: their step vectors are in the file.
    private var firstCall = 0
    /// Other step counts and guidance scales.
    public let samplers: [OtherSampler]
    /// All that the bundle lists, relative to the folder.
    public let files: Set<String>

    /// Whether the bundle lists a file of this path, or files in a folder of it.
    public func lists(_ path: String) -> Bool { Self.lists(path, in: files) }

    private static func lists(_ path: String, in files: Set<String>) -> Bool {
        files.contains(path) || files.contains { $0.hasPrefix(path + "/") }
    }

    /// Names of the conditioning, in the order of the inputs.
    public var conditioning: [Port] {
        inputs.filter { !["sample", "timestep", "step_vectors", "ranges"].contains($0.name) }
    }

    /// - Parameter target: the only one accepted; nil takes any.
    /// - Throws: SampleError: missing, damaged, of another kind, version or target.
    public init(_ folder: URL, target wanted: String?) throws {
        let place = "bundle.json", (json, bytes) = try Self.header(folder)
        target = try json.required("target", place).asString("\(place): target")
        if let wanted, target != wanted {
            throw SampleError("the bundle is for target '\(target)', this program runs '\(wanted)'; export with --target \(wanted)")
        }
        self.folder = folder
        sha256 = SHA256.of(bytes)
        let files = try json.required("files", place).asObject("\(place): files")
        self.files = Set(files.keys)
        let programName = try json.required("program", place).asString("\(place): program")
        let ports = try Self.ports(json, "inputs", place), rows = ["ranges", "step_vectors"].filter { ports.map(\.name).contains($0) }
        inputs = ports
        for name in [programName, "reference.safetensors"] + rows.map({ "\($0).safetensors" })
        where !Self.lists(name, in: self.files) {
            throw SampleError("\(place) lists no file '\(name)'; export the bundle again")
        }
        for name in files.keys {
            try Self.check(folder, name, try files.required(name, place).asString("\(place): files"))
        }
        program = folder.appendingPathComponent(programName)
        let outputs = try Self.ports(json, "outputs", place)
        guard let sample = inputs.first(where: { $0.name == "sample" }), sample.kind == .float32, sample.shape.count >= 3,
            inputs.filter({ $0.name == "timestep" || $0.name == "step_vectors" }).count == 1, outputs.count == 1,
            outputs[0].shape == sample.shape, outputs[0].kind == .float32, Set(inputs.map(\.name)).count == inputs.count,
            inputs.allSatisfy({ $0.name != "timestep" || ($0.kind == .float32 && $0.shape == [1]) }),
            inputs.allSatisfy({ !rows.contains($0.name) || ($0.kind == .float32 && $0.shape.count == 2) })
        else {
            throw SampleError(
                "\(place) must have inputs sample (1, C, ...) and timestep (1) or step_vectors (1, V), float32, perhaps ranges (1, R), "
                    + "no name twice, and one output of the sample's shape; export the bundle again")
        }
        output = outputs[0]
        table = try SamplerTable(json.required("table", place).asObject("\(place): table"), place: "\(place): table")
        if let channels = table.correction?.channels, channels != sample.shape[1] {
            throw SampleError(
                "\(place): table.correction must have a number for each of \(sample.shape[1]) channels, got \(channels); "
                    + "export the bundle again")
        }
        let groups = try StepSchedule.listed(json, place)
        let methods = try json.required("methods", place).asArray("\(place): methods").map {
            try Self.plain($0.asString("\(place): methods"), "\(place): methods")
        }
        schedule = try StepSchedule(stepGroups: groups, methods: methods, calls: table.calls, place: place)
        guidance = try OtherSampler.guidance(json, place)
        let listed = try json["samplings"].map { try $0.asArray("\(place): samplings") } ?? []
        var found: [OtherSampler] = []
        for row in listed {
            let here = "\(place): samplings"
            let one = try OtherSampler(
                row.asObject(here), methods: methods, groups: groups.count, takesVectors: rows.contains("step_vectors"), place: here)
            if let channels = one.table.correction?.channels, channels != sample.shape[1] {
                throw SampleError("\(here): correction has \(channels) channels, \(sample.shape[1]) are needed; export the bundle again")
            }
            for name in [one.reference, one.stepVectors].compactMap({ $0 }) where !files.keys.contains(name) {
                throw SampleError("\(place) lists no file '\(name)'; export the bundle again")
            }
            guard !found.contains(where: { OtherSampler.same($0.steps, $0.guidance, one.steps, one.guidance) }) else {
                throw SampleError("\(here) hold \(OtherSampler.name(one.steps, one.guidance)) twice; export the bundle again")
            }
            found.append(one)
        }
        samplers = found
        steps = try found.isEmpty ? nil : OtherSampler.steps(json, place)
    }

    /// The bundle at one of its step counts and guidance scales; nil is the calibrated one.
    /// - Throws: SampleError: it does not hold it.
    public func at(steps wantedSteps: Int?, guidance wantedGuidance: Double?) throws -> ExportedBundle {
        let own = steps ?? table.calls, count = wantedSteps ?? own, scale = wantedGuidance ?? guidance
        if OtherSampler.same(own, guidance, count, scale) { return self }
        guard let sampler = samplers.first(where: { OtherSampler.same($0.steps, $0.guidance, count, scale) }) else {
            let held = [OtherSampler.name(own, guidance)] + samplers.map { OtherSampler.name($0.steps, $0.guidance) }
            throw SampleError(
                "--steps and --guidance: got \(OtherSampler.name(count, scale)), the bundle holds \(held.joined(separator: "; ")); "
                    + "choose of these, or export with others (--steps, --guidance)")
        }
        var bundle = self
        (bundle.steps, bundle.guidance, bundle.referenceName) = (sampler.steps, sampler.guidance, sampler.reference)
        (bundle.table, bundle.schedule) = (sampler.table, sampler.schedule)
        bundle.stepVectorsName = sampler.stepVectors ?? stepVectorsName
        return bundle
    }

    /// The bundle with the network calls from `first` on.
    ///
    /// - Parameter table: of these calls; nil: the tail of the bundle's own.
    /// - Throws: SampleError: they are not calls of this bundle, or the tail looks back on earlier ones.
    public func remaining(from first: Int, table own: SamplerTable?) throws -> ExportedBundle {
        let calls = own?.calls ?? max(table.calls - first, 0)
        guard first < table.calls, calls == table.calls - first else {
            throw SampleError(
                "image_to_image: a start at call \(first) with \(calls) calls does not belong to \(table.calls) calls; export the bundle "
                    + "again")
        }
        var rest = self
        rest.table = try (own ?? table.from(first)).with(table.correction?.from(first))
        rest.schedule = schedule.from(first)
        rest.firstCall += first
        return rest
    }

    /// Which runtime a bundle is for, without a look at anything else in it.
    /// - Throws: SampleError: there is no bundle of this version.
    public static func target(of folder: URL) throws -> String {
        try header(folder).json.required("target", "bundle.json").asString("bundle.json: target")
    }

    /// bundle.json, of the right kind and version.
    private static func header(_ folder: URL) throws -> (json: JSONObject, bytes: [UInt8]) {
        let file = folder.appendingPathComponent("bundle.json"), place = "bundle.json"
        let kind = fileType(at: file)  // a FIFO would be waited on
        guard kind == .typeRegular || kind == .typeSymbolicLink, let bytes = try? Data(contentsOf: file) else {
            throw SampleError("cannot read \(file.path); give the folder that export wrote as --bundle")
        }
        let json = try JSONReader.read(Array(bytes), name: place).asObject(place)
        guard json["schema"] == .string("dq-toolchain/bundle"), json["schema_version"] == .integer(1) else {
            throw SampleError("\(file.path) must be dq-toolchain/bundle, version 1, and is not; export the bundle again")
        }
        return (json, Array(bytes))
    }

    /// Of one input or output.
    private static let mostElements = 2_147_483_647

    /// nil: there is nothing. A link is not followed.
    private static func fileType(at file: URL) -> FileAttributeType? {
        (try? FileManager.default.attributesOfItem(atPath: file.path))?[.type] as? FileAttributeType
    }

    /// The name of a method or a port: letters, digits, and _ . - behind the first.
    public static func plain(_ name: String, _ place: String) throws -> String {
        let first = Set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"), others = first.union("0123456789.-")
        guard let letter = name.first, first.contains(letter), name.count <= 100, name.allSatisfy(others.contains) else {
            throw SampleError("\(place): the name '\(name)' must be letters, digits, _ . and -; export the bundle again")
        }
        return name
    }

    /// Names that lead out of the folder are refused: a bundle from elsewhere must not choose what is read.
    private static func check(_ folder: URL, _ name: String, _ digest: String) throws {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        let odd = name.unicodeScalars.contains { $0 == "\\" || $0 == ":" || $0.value < 0x20 || $0.value == 0x7F }
        guard !odd, !parts.contains(where: { ["", ".", ".."].contains($0) }) else {
            throw SampleError("bundle.json names the file '\(name)', names must stay in the folder; export the bundle again")
        }
        var path = folder
        for (index, part) in parts.enumerated() {
            path.appendPathComponent(String(part))
            guard let found = fileType(at: path) else { throw SampleError("cannot read \(path.path); copy the bundle again, whole") }
            let wanted: FileAttributeType = index == parts.count - 1 ? .typeRegular : .typeDirectory
            guard found == wanted else {
                throw SampleError("\(path.path) is a link or no regular file; export the bundle again")
            }
        }
        guard try SHA256.of(file: folder.appendingPathComponent(name)) == digest else {
            throw SampleError("\(name) was changed after export (its SHA-256 is another); copy the bundle again, whole")
        }
    }

    private static func ports(_ json: JSONObject, _ key: String, _ place: String) throws -> [Port] {
        try json.required(key, place).asArray("\(place): \(key)").map { row in
            let here = "\(place): \(key)", object = try row.asObject(here)
            let type = try object.required("dtype", here).asString(here)
            let shape = try object.required("shape", here).asArray(here).map { try $0.asInt(here) }
            guard let kind = Port.Kind(rawValue: type), shape.first == 1, shape.allSatisfy({ $0 > 0 }), fits(shape) else {
                throw SampleError(
                    "\(here): dtype \(type) and shape \(shape), allowed are float32 and int64, batch 1, at most \(mostElements) "
                        + "numbers; export the bundle again")
            }
            return Port(name: try plain(object.required("name", here).asString(here), here), kind: kind, shape: shape)
        }
    }

    /// Whether a positive shape has at most `mostElements` numbers.
    private static func fits(_ shape: [Int]) -> Bool {
        var product = 1
        for side in shape {
            guard side <= mostElements / product else { return false }
            product *= side
        }
        return true
    }

    /// The input `ranges` of every step group, (1, R) each; nil where the program has no such input.
    /// - Throws: SampleError: ranges.safetensors is missing or of another shape.
    public func ranges() throws -> [Tensor]? { try rows("ranges", schedule.groups, "ranges.safetensors") }

    /// The input `step_vectors` of every call, (1, V) each; nil where the program takes the timestep.
    /// - Throws: SampleError: the file is missing or of another shape.
    public func stepVectors() throws -> [Tensor]? {
        try rows("step_vectors", firstCall + table.calls, stepVectorsName).map { Array($0[firstCall...]) }
    }

    private func rows(_ name: String, _ count: Int, _ fileName: String) throws -> [Tensor]? {
        guard let port = inputs.first(where: { $0.name == name }) else { return nil }
        let file = try SafetensorsFile(folder.appendingPathComponent(fileName)), wanted = [count] + port.shape.dropFirst()
        guard file.shape(of: name) == wanted, file.kind(of: name) == .float32, file.isFinite(name) else {
            throw SampleError(
                "\(fileName) must hold '\(name)', finite F32 of shape \(wanted), got "
                    + "\(file.shape(of: name).map { "\($0)" } ?? "none"); export the bundle again")
        }
        return try (0..<count).map { try file.floats(name, at: [$0]).reshaped(port.shape) }
    }
}
