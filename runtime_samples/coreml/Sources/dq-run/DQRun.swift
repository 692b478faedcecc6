import DQCoreML
import DQSampler
import Foundation

/// Runs an exported bundle with Core ML and writes the device report.
@main
struct DQRun {
    static func main() async {
        let options = [
            Arguments.Option("--compute-units", allowed: ComputeUnits.allCases.map(\.rawValue)),
            Arguments.Option("--keep-functions", allowed: ["on", "off"]),
        ]
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
