#if canImport(SwiftUI)
import DQDevice
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
    let bundles: [DeviceBundle]
    var bundle: DeviceBundle?
    /// Of the runtime of the bundle that was chosen then; see `unit`.
    var wantedUnit: DeviceRuntime.Unit?
    var keepFunctions = false
    /// 0: all.
    var seeds = 0
    private var task: Task<Void, Never>?

    init() {
        bundles = Bundle.main.resourceURL.map(DeviceBundle.all) ?? []
        bundle = bundles.first
    }

    /// What was chosen, as far as the runtime of this bundle knows it.
    var unit: DeviceRuntime.Unit? {
        guard let units = bundle?.runtime?.units else { return nil }
        return units.first { $0 == wantedUnit } ?? units.first
    }

    var canRun: Bool { unit != nil && bundle?.problem == nil }

    var isRunning: Bool {
        if case .running = state { return true }
        return false
    }

    func start() {
        guard let bundle, let runtime = bundle.runtime, let unit, canRun, !isRunning else { return }
        state = .running(nil)
        UIApplication.shared.isIdleTimerDisabled = true  // a sleeping phone is a slow phone
        let run = DeviceRun(
            folder: bundle.folder, runtime: runtime, unit: unit, keepFunctions: keepFunctions, seeds: seeds == 0 ? nil : seeds)
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
