#if canImport(SwiftUI)
import DQDevice
import DQGenerate
import DQSampler
import Foundation
import Observation
import PhotosUI
import SwiftUI
import UIKit

/// What the screen of prompts shows; what decides is in DQDevice.
@MainActor
@Observable
final class PromptModel {
    enum State {
        case idle
        case drawing(Drawing.Progress)
        case done(DrawnPicture)
        case failed(String)
    }

    private(set) var state = State.idle
    /// Those with text encoders and a decoder.
    let bundles: [DeviceBundle]
    /// Another one may take pictures of another size, or none.
    var bundle: DeviceBundle? {
        didSet { if !form.fits(bundle?.imageSize) { removePhoto() } }
    }
    var form = PromptForm()
    /// What was chosen to begin with, and why it cannot be read.
    var photo: PhotosPickerItem? {
        didSet { loadPhoto() }
    }
    private(set) var photoProblem: String?
    private var task: Task<Void, Never>?

    init() {
        bundles = (Bundle.main.resourceURL.map(DeviceBundle.all) ?? []).filter(\.draws)
        bundle = bundles.first
    }

    var canDraw: Bool { form.canDraw && bundle?.runtime != nil && bundle?.problem == nil && !isDrawing }

    var isDrawing: Bool {
        if case .drawing = state { return true }
        return false
    }

    func draw() {
        guard canDraw, let bundle, let runtime = bundle.runtime, let wish = try? form.wish() else { return }
        let (folder, unit, lowMemory) = (bundle.folder, runtime.units[0], form.lowMemory)
        let file = URL.documentsDirectory.appendingPathComponent("picture-\(wish.seed).png")
        state = .drawing(.reading)
        UIApplication.shared.isIdleTimerDisabled = true  // a sleeping phone is a slow phone
        task = Task {
            do {
                let drawn = try await DrawnPicture.draw(
                    wish, folder: folder, runtime: runtime, unit: unit, lowMemory: lowMemory, file: file
                ) { progress in
                    Task { @MainActor in self.show(progress) }
                }
                state = .done(drawn)
            } catch is CancellationError {
                state = .idle
            } catch {
                state = .failed("\(error)")
            }
            UIApplication.shared.isIdleTimerDisabled = false
        }
    }

    func removePhoto() { photo = nil }

    /// Scales and crops what was chosen to the model's size.
    private func loadPhoto() {
        (form.image, photoProblem) = (nil, nil)
        guard let photo, let size = bundle?.imageSize else { return }
        Task {
            do {
                guard let data = try await photo.loadTransferable(type: Data.self) else {
                    throw SampleError("the photo cannot be read; choose another")
                }
                let picture = try await Task.detached { try DQGenerate.Picture(photo: data, height: size.height, width: size.width) }.value
                if photo == self.photo, size == bundle?.imageSize { form.image = picture }
            } catch {
                if photo == self.photo { photoProblem = "\(error)" }
            }
        }
    }

    func cancel() { task?.cancel() }

    /// Progress may arrive after the end, in any order: only a drawing that goes on takes it.
    private func show(_ progress: Drawing.Progress) {
        guard case .drawing(let before) = state, progress.isFurther(than: before) else { return }
        state = .drawing(progress)
    }
}
#endif
