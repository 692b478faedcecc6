import Foundation

/// What the programs share: exit codes, errors as one line, progress.
public enum Command {
    /// Runs `body` with the arguments of this process; 0 when it returns, 2 and one line on stderr when it throws.
    public static func run(
        _ program: String, options: [Arguments.Option] = [], body: @Sendable (Arguments) async throws -> Void
    ) async -> Int32 {
        let arguments = Array(CommandLine.arguments.dropFirst())
        if arguments == ["--help"] || arguments == ["-h"] {
            print(Arguments.usage(program, options))
            return 0
        }
        do {
            try await body(try Arguments(arguments, options: options))
            return 0
        } catch {
            say("\(program): \((error as? SampleError) ?? SampleError("\(error)"))")
            return 2
        }
    }

    public static func say(_ text: String) {
        FileHandle.standardError.write(Data("\(text)\n".utf8))
    }

    /// One line that is written over, on a terminal; silent elsewhere.
    public static let showProgress: Run.OnProgress = { progress in
        guard isatty(FileHandle.standardError.fileDescriptor) == 1 else { return }
        let left = Int(progress.secondsLeft.rounded(.up))
        let text = "\r\(progress.done)/\(progress.total) calls, \(left / 60) min \(left % 60) s left   "
        FileHandle.standardError.write(Data((text + (progress.done == progress.total ? "\n" : "")).utf8))
    }

    /// Samples as the arguments say; prints where the report is.
    public static func sample(
        _ arguments: Arguments, target: String?, open: @Sendable (ExportedBundle, Reference) async throws -> any Network
    ) async throws {
        _ = try await Sampling.run(
            arguments.bundle, target: target, report: arguments.report, seeds: arguments.seeds,
            steps: arguments.steps, guidance: arguments.guidance, teacherForced: arguments.teacherForced, onProgress: showProgress, open: open)
        print(arguments.report.appendingPathComponent(Report.jsonName).path)
    }
}
