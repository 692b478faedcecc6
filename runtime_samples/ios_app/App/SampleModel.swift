#if canImport(SwiftUI) && canImport(CoreML)
import DQCoreML
import DQSampler
import Foundation
import Observation
import UIKit

/// What the screen shows: nothing yet, a run, its outcome, or why there is none.
@MainActor
@Observable
final class SampleModel {
    enum State {
        case idle
        case running(Run.Progress?)
        case done(DeviceRun, Sampling.Outcome)
        case failed(String)
    }

    private(set) var state = State.idle
    var folder = DeviceRun.bundles.first
    var units = ComputeUnits.cpuAndNeuralEngine
    var keepFunctions = false
    /// 0: all.
    var seeds = 0
    private var task: Task<Void, Never>?

    var isRunning: Bool {
        if case .running = state { return true }
        return false
    }

    func start() {
        guard let folder, !isRunning else { return }
        state = .running(nil)
        UIApplication.shared.isIdleTimerDisabled = true  // a sleeping phone is a slow phone
        let run = DeviceRun(folder: folder, units: units, keepFunctions: keepFunctions, seeds: seeds == 0 ? nil : seeds)
        task = Task {
            do {
                let outcome = try await run.run { progress in
                    Task { @MainActor in self.show(progress) }
                }
                state = .done(run, outcome)
            } catch is CancellationError {
                state = .idle
            } catch {
                state = .failed("\(error)")
            }
            UIApplication.shared.isIdleTimerDisabled = false
        }
    }

    func cancel() { task?.cancel() }

    /// Progress may arrive after the end, in any order: only a run that runs takes it.
    private func show(_ progress: Run.Progress) {
        guard case .running(let before) = state, progress.done > before?.done ?? 0 else { return }
        state = .running(progress)
    }
}
#endif
