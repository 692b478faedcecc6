import DQCoreML
import DQGenerate
import DQSampler
import Foundation

/// Runs an exported bundle with Core ML and writes the device report; or draws the picture of a prompt (`generate`).
@main
struct DQRun {
    static func main() async {
        let options = [
            Arguments.Option("--compute-units", allowed: ComputeUnits.allCases.map(\.rawValue)),
            Arguments.Option("--keep-functions", allowed: ["on", "off"]),
        ]
        if let words = GenerateCommand.arguments {
            exit(
                await GenerateCommand.run("dq-run", words, target: "coreml", options: options) { arguments in
                    if let missing = CoreMLRuntime.missing { throw missing }
                    let units = arguments.own["--compute-units"].flatMap(ComputeUnits.init) ?? .cpuAndNeuralEngine
                    return CoreMLPrograms(units: units, keepFunctions: arguments.own["--keep-functions"] == "on")
                })
        }
        exit(
            await Command.run("dq-run", options: options) { arguments in
                if let missing = CoreMLRuntime.missing { throw missing }
                let units = arguments.own["--compute-units"].flatMap(ComputeUnits.init) ?? .cpuAndNeuralEngine
                try await Command.sample(arguments, target: "coreml") { bundle, _ in
                    try await CoreMLRuntime.open(bundle, units: units, keepFunctions: arguments.own["--keep-functions"] == "on")
                }
            })
    }
}
