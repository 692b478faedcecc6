#if canImport(SwiftUI)
import DQDevice
import DQGenerate
import PhotosUI
import SwiftUI

/// A prompt in, a picture out.
struct PromptView: View {
    @State private var model = PromptModel()

    var body: some View {
        NavigationStack {
            Form {
                switch model.state {
                case .idle: EmptyView()
                case .drawing(let progress): DrawingSection(progress: progress) { model.cancel() }
                case .failed(let text): Section("Not drawn") { Text(text).textSelection(.enabled) }
                case .done(let drawn): DrawnSection(drawn: drawn)
                }
                PromptSection(model: model)
            }
            .navigationTitle("Prompt")
        }
    }
}

/// What to draw, and the button.
struct PromptSection: View {
    @Bindable var model: PromptModel

    var body: some View {
        Section {
            if model.bundles.isEmpty {
                Text("There is no bundle of a whole pipeline in this app: export a text-to-image pipeline, and drag the folder in.")
            }
            TextField("Prompt", text: $model.form.prompt, axis: .vertical)
            TextField("Negative prompt, only with guidance", text: $model.form.negativePrompt, axis: .vertical)
            HStack {
                TextField("Seed", text: $model.form.seed).keyboardType(.numberPad)
                Button("Next", systemImage: "arrow.forward") { model.form.nextSeed() }.labelStyle(.iconOnly)
            }
            if model.bundle?.imageSize != nil { PhotoRows(model: model) }
            Picker("Bundle", selection: $model.bundle) {
                ForEach(model.bundles, id: \.self) { Text($0.folder.lastPathComponent).tag(DeviceBundle?.some($0)) }
            }
            Toggle("Low memory: load one part after the other", isOn: $model.form.lowMemory)
            if let problem = model.bundle?.problem ?? model.form.problem { Text(problem).foregroundStyle(.red) }
            Button("Draw") { model.draw() }.disabled(!model.canDraw)
        }
    }
}

/// A photo to begin with, and how much of it is changed.
struct PhotoRows: View {
    @Bindable var model: PromptModel

    var body: some View {
        PhotosPicker(selection: $model.photo, matching: .images) { Label("Begin with a photo", systemImage: "photo") }
        if let image = model.form.image?.image {
            Image(decorative: image, scale: 1).resizable().aspectRatio(contentMode: .fit).frame(maxHeight: 160)
            Slider(value: $model.form.strength, in: 0.05...1) { Text("Strength") }
            LabeledContent("Strength: how much is changed", value: model.form.strength.formatted(.number.precision(.fractionLength(2))))
            Button("Without the photo", role: .destructive) { model.removePhoto() }
        }
        if let problem = model.photoProblem { Text(problem).foregroundStyle(.red) }
    }
}

struct DrawingSection: View {
    let progress: Drawing.Progress
    let cancel: () -> Void

    var body: some View {
        Section {
            ProgressView(value: progress.share) { Text(progress.text) }
            Button("Stop", role: .cancel, action: cancel)
        }
    }
}

struct DrawnSection: View {
    let drawn: DrawnPicture

    var body: some View {
        Section {
            if let image = drawn.outcome.picture.image {
                Image(decorative: image, scale: 1).resizable().aspectRatio(contentMode: .fit)
            }
            ForEach(drawn.warnings, id: \.self) { Text($0).font(.caption) }
            LabeledContent("Time", value: Duration.seconds(drawn.outcome.seconds).formatted(.units(allowed: [.minutes, .seconds])))
            ShareLink("Share the picture", item: drawn.file)
        }
    }
}
#endif
