import DQSampler
import Foundation

/// Replays a recording through the sampler: the same report in every language, without any network.
@main
struct DQReplay {
    static func main() async {
        let options = [Arguments.Option("--replay", required: true)]
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
