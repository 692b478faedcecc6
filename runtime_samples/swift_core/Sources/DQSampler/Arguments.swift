import Foundation

/// The command line that all programs for devices share, and what a program adds to it.
public struct Arguments: Sendable, Equatable {
    /// An option of one program. `allowed` empty: any text.
    public struct Option: Sendable {
        public let flag: String
        let allowed: [String]
        public let required: Bool

        public init(_ flag: String, allowed: [String] = [], required: Bool = false) {
            (self.flag, self.allowed, self.required) = (flag, allowed, required)
        }

        public var usage: String {
            let text = "\(flag) \(allowed.isEmpty ? "FILE" : allowed.joined(separator: "|"))"
            return required ? text : "[\(text)]"
        }
    }

    public let bundle: URL
    public let report: URL
    /// nil: all.
    public let seeds: Int?
    /// nil: the calibrated ones.
    public let steps: Int?
    public let guidance: Double?
    public let teacherForced: Bool
    /// The program's own options by flag.
    public let own: [String: String]

    public static func usage(_ program: String, _ options: [Option] = []) -> String {
        "usage: \(program) --bundle FOLDER --report FOLDER [--seeds N] [--steps N] [--guidance W] [--teacher-forced on|off] "
            + options.map(\.usage).joined(separator: " ")
            + "\n--seeds N: the first N held-out seeds (default: all); "
            + "with fewer than 10 validate never says pass, at best \"not decided\""
            + "\n--steps N, --guidance W: of the step counts and guidance scales that the bundle holds (default: the calibrated ones)"
    }

    /// - Parameter arguments: without the program's name.
    /// - Throws: SampleError: unknown, twice, without a value, or not allowed.
    public init(_ arguments: [String], options: [Option] = []) throws {
        let own = Set(options.map(\.flag))
        let known = own.union(["--bundle", "--report", "--seeds", "--steps", "--guidance", "--teacher-forced"])
        let words = try OptionWords(arguments, known: known), values = words.values
        for flag in ["--bundle", "--report"] + options.filter(\.required).map(\.flag) where values[flag]?.isEmpty ?? true {
            throw SampleError("\(flag) is missing; see --help")
        }
        try words.check(options)
        let forced = values["--teacher-forced"] ?? "on"
        guard ["on", "off"].contains(forced) else {
            throw SampleError("--teacher-forced got '\(forced)', allowed are on and off; change it")
        }
        seeds = try words.count("--seeds")
        steps = try words.count("--steps")
        guidance = try words.number("--guidance")
        bundle = URL(fileURLWithPath: values["--bundle"] ?? "", isDirectory: true)
        report = URL(fileURLWithPath: values["--report"] ?? "", isDirectory: true)
        teacherForced = forced == "on"
        self.own = values.filter { own.contains($0.key) }
    }
}
