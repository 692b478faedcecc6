import DQGenerate
import DQSampler
import Foundation

/// Replays a recording through the sampler, or through a whole pipeline (`generate`): the same report and the same picture in every
/// language, without any network.
@main
struct DQReplay {
    static func main() async {
        let options = [Arguments.Option("--replay", required: true)]
        if let words = GenerateCommand.arguments {
            exit(
                await GenerateCommand.run("dq-replay", words, target: nil, options: options) { arguments in
                    ReplayPrograms(try SafetensorsFile(URL(fileURLWithPath: arguments.own["--replay"] ?? "")))
                })
        }
        exit(
            await Command.run("dq-replay", options: options) { arguments in
                try await Command.sample(arguments, target: nil) { bundle, reference in
                    try ReplayNetwork(
                        SafetensorsFile(URL(fileURLWithPath: arguments.own["--replay"] ?? "")), seeds: reference.seeds,
                        executionsPerRollout: bundle.table.calls * (bundle.guidance == 1 ? 1 : 2),
                        teacherForced: arguments.teacherForced)
                }
            })
    }
}
