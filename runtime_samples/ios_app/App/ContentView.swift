#if canImport(SwiftUI)
import DQDevice
import DQSampler
import SwiftUI

struct ContentView: View {
    @State private var model = SampleModel()

    var body: some View {
        NavigationStack {
            List {
                switch model.state {
                case .idle: SettingsSection(model: model)
                case .running(let progress): RunningSection(progress: progress) { model.cancel() }
                case .failed(let text):
                    Section("Not run") { Text(text).textSelection(.enabled) }
                    SettingsSection(model: model)
                case .done(let run, let outcome):
                    OutcomeSections(outcome: outcome, files: run.files)
                    SettingsSection(model: model)
                }
            }
            .navigationTitle("Device report")
        }
    }
}

/// Which bundle, on what, and the button.
struct SettingsSection: View {
    @Bindable var model: SampleModel

    var body: some View {
        Section {
            if model.bundles.isEmpty {
                Text("There is no bundle in this app: drag the exported folder into the project, as a folder reference.")
            }
            Picker("Bundle", selection: $model.bundle) {
                ForEach(model.bundles, id: \.self) { Text($0.folder.lastPathComponent).tag(DeviceBundle?.some($0)) }
            }
            if let problem = model.bundle?.problem {
                Text(problem)
            } else if let runtime = model.bundle?.runtime {
                LabeledContent("Runs with", value: runtime.name)
                Picker("Compute units", selection: Binding(get: { model.unit }, set: { model.wantedUnit = $0 })) {
                    ForEach(runtime.units, id: \.self) { Text($0.name).tag(DeviceRuntime.Unit?.some($0)) }
                }
            }
            Toggle("Keep all functions loaded", isOn: $model.keepFunctions)
            Stepper(model.seeds == 0 ? "All seeds" : "First \(model.seeds) seeds", value: $model.seeds, in: 0...64)
            Button("Run") { model.start() }.disabled(!model.canRun)
        }
    }
}

struct RunningSection: View {
    /// nil: still loading.
    let progress: Run.Progress?
    let cancel: () -> Void

    var body: some View {
        Section {
            if let progress {
                let left = Duration.seconds(Int64(progress.secondsLeft.rounded(.up)))
                ProgressView(value: Double(progress.done), total: Double(progress.total)) {
                    Text("\(progress.done) of \(progress.total) calls, \(left.formatted()) left")
                }
            } else {
                ProgressView("Checking and compiling; the first time takes minutes")
            }
            Button("Stop", role: .cancel, action: cancel)
        }
    }
}
#endif
