import DQCoreAI
import DQGenerate
import DQSampler
import Foundation

/// Runs an exported bundle with Core AI and writes the device report; or draws the picture of a prompt (`generate`).
@main
struct DQRun {
    static func main() async {
        let options = [
            Arguments.Option("--compute-unit", allowed: ComputeUnit.allCases.map(\.rawValue)),
            Arguments.Option("--keep-functions", allowed: ["on", "off"]),
            Arguments.Option("--program"),
        ]
        if let words = GenerateCommand.arguments {
            exit(
                await GenerateCommand.run("dq-run-coreai", words, target: "coreai", options: options) { arguments in
                    if let missing = CoreAIRuntime.missing { throw missing }
                    return CoreAIPrograms(
                        unit: arguments.own["--compute-unit"].flatMap(ComputeUnit.init) ?? .neuralEngine,
                        compiled: arguments.own["--program"].map { URL(fileURLWithPath: $0) },
                        keepFunctions: arguments.own["--keep-functions"] == "on")
                })
        }
        exit(
            await Command.run("dq-run-coreai", options: options) { arguments in
                if let missing = CoreAIRuntime.missing { throw missing }
                let unit = arguments.own["--compute-unit"].flatMap(ComputeUnit.init) ?? .neuralEngine
                let compiled = arguments.own["--program"].map { URL(fileURLWithPath: $0) }
                try await Command.sample(arguments, target: "coreai") { bundle, _ in
                    try await CoreAIRuntime.open(
                        bundle, unit: unit, compiled: compiled, keepFunctions: arguments.own["--keep-functions"] == "on")
                }
            })
    }
}
