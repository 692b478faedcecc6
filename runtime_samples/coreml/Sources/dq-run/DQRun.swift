import DQCoreML
import DQSampler
import Foundation

/// Runs an exported bundle with Core ML and writes the device report.
@main
struct DQRun {
    static func main() async {
        #if canImport(CoreML)
        let options = [
            Arguments.Option("--compute-units", allowed: ComputeUnits.allCases.map(\.rawValue)),
            Arguments.Option("--keep-functions", allowed: ["on", "off"]),
        ]
        exit(
            await Command.run("dq-run", options: options) { arguments in
                let units = arguments.own["--compute-units"].flatMap(ComputeUnits.init) ?? .cpuAndNeuralEngine
                try await Command.sample(arguments, target: "coreml") { bundle, _ in
                    try await CoreMLNetwork(bundle, units: units, keepFunctions: arguments.own["--keep-functions"] == "on")
                }
            })
        #else
        Command.say("dq-run: Core ML is only on Apple systems, this is another; run it on a Mac, or use dq-replay here")
        exit(2)
        #endif
    }
}
