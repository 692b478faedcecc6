import DQSampler
import Foundation
import XCTest

/// In which order the network is asked for what.
final class RunTests: XCTestCase {
    /// Answers zeros and keeps the names of what it was asked.
    private actor Recorder: Network {
        private(set) var events: [String] = []
        private(set) var labels: [AnyTensor?] = []

        func prepare(step: Int) { events.append("prepare \(step)") }
        func warmUp(_ call: NetworkCall) { events.append("warm \(call.step)") }

        func execute(_ call: NetworkCall) throws -> Tensor {
            events.append("execute \(call.step)")
            labels.append(call.conditioning["class_labels"])
            return Tensor(zeros: call.sample.shape)
        }

        func describe() -> RuntimeDescription { RuntimeDescription(name: "recorder", version: "1", computeUnit: "none") }
    }

    func testOrderOfCalls() async throws {
        let bundle = try Golden.bundle("dpm-history"), recorder = Recorder()
        let reference = try Reference(bundle, seeds: 1)
        _ = try await Run(bundle: bundle, reference: reference, network: recorder).run()
        let warm = ["prepare 0", "warm 0", "prepare 2", "warm 2"]
        let rollout = (0..<5).flatMap { ["prepare \($0)", "execute \($0)"] }
        let events = await recorder.events
        XCTAssertEqual(events, warm + rollout + rollout)
    }

    func testGuidanceAsksTwice() async throws {
        let bundle = try Golden.bundle("ddim-guided"), recorder = Recorder()
        let reference = try Reference(bundle, seeds: 2)
        _ = try await Run(bundle: bundle, reference: reference, network: recorder, teacherForced: false).run()
        let labels = await recorder.labels
        let wanted: [Int64] = (0..<20).map { $0 % 2 == 1 ? 10 : $0 / 10 }
        XCTAssertEqual(labels, wanted.map { .integer(IntegerTensor(shape: [1], values: [$0])) })
        let events = await recorder.events
        XCTAssertEqual(events.prefix(2), ["prepare 0", "warm 0"])
        XCTAssertEqual(events.filter { $0.hasPrefix("warm") }.count, 1, "one method for all groups")
    }

    /// A damaged program may answer anything, and the second execution something else than the first.
    func testAnswersOfAnotherShapeAreRefused() async throws {
        actor Shrinking: Network {
            private var answers: [[Int]]

            init(_ answers: [[Int]]) { self.answers = answers }

            func warmUp(_ call: NetworkCall) {}
            func execute(_ call: NetworkCall) -> Tensor { Tensor(zeros: answers.removeFirst()) }
            func describe() -> RuntimeDescription { RuntimeDescription(name: "shrinking", version: "1", computeUnit: "none") }
        }
        let bundle = try Golden.bundle("ddim-guided"), whole = bundle.output.shape, less = [1, 1, 2, 3]
        let reference = try Reference(bundle, seeds: 1)
        for answers in [[less, whole], [whole, less], [less, less]] {
            do {
                _ = try await Run(bundle: bundle, reference: reference, network: Shrinking(answers), teacherForced: false).run()
                XCTFail("not refused: \(answers)")
            } catch let error as SampleError {
                XCTAssert(error.description.contains("step 0 answers with shape \(less), the bundle says \(whole)"), error.description)
            }
        }
    }

    func testProgressCountsEveryCall() async throws {
        final class Log: @unchecked Sendable {
            var entries: [Run.Progress] = []
        }
        let bundle = try Golden.bundle("dpm-history"), log = Log()
        let reference = try Reference(bundle, seeds: nil)
        _ = try await Run(bundle: bundle, reference: reference, network: Recorder()) { log.entries.append($0) }.run()
        XCTAssertEqual(log.entries.map(\.done), Array(1...20))
        XCTAssertEqual(Set(log.entries.map(\.total)), [20])
        XCTAssertEqual(log.entries.last?.secondsLeft, 0)
    }
}
