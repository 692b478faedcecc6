#if canImport(SwiftUI)
import DQSampler
import Foundation
import SwiftUI

/// The report to hand out, the pictures, and what the verdict will look at; the verdict itself is the host's.
struct OutcomeSections: View {
    let outcome: Sampling.Outcome
    /// report.json and report.safetensors.
    let files: [URL]

    private var report: Report { outcome.report }

    var body: some View {
        Section("Report") {
            ShareLink("Send the report (\(files.count) files)", items: files)
            LabeledContent("Ran on", value: report.runtime.computeUnit)
            LabeledContent("Loading", value: milliseconds(report.runtime.loadMilliseconds))
            LabeledContent("of it compiling", value: milliseconds(report.runtime.compileMilliseconds))
            LabeledContent("One picture", value: milliseconds(report.result.stepMilliseconds.reduce(0, +)))
        }
        Section("Pictures: device above, FP32 below") { PictureGrid(outcome: outcome) }
        Section("Relative error after each step, median over seeds") {
            StepRow(cells: ["step", "to FP32", "to simulation", "ms"]).font(.caption.bold())
            ForEach(report.figures.errorToFP32.indices, id: \.self) { k in
                StepRow(cells: [
                    String(k), percent(report.figures.errorToFP32[k]), percent(report.figures.errorToSimulation[k]),
                    report.result.stepMilliseconds[k].formatted(.number.precision(.fractionLength(1))),
                ])
            }
        }
    }

    private func milliseconds(_ value: Double?) -> String {
        value.map { $0.formatted(.number.precision(.fractionLength(0))) + " ms" } ?? "not measured"
    }

    private func percent(_ value: Double) -> String {
        value.isFinite ? value.formatted(.percent.precision(.fractionLength(3))) : "not finite"
    }
}

struct StepRow: View {
    let cells: [String]

    var body: some View {
        HStack {
            ForEach(cells.indices, id: \.self) { Text(cells[$0]).frame(maxWidth: .infinity, alignment: .trailing) }
        }
        .monospacedDigit()
    }
}

struct PictureGrid: View {
    let outcome: Sampling.Outcome

    var body: some View {
        LazyVGrid(columns: [GridItem(.adaptive(minimum: 96))]) {
            ForEach(outcome.samples.indices, id: \.self) { seed in
                VStack {
                    Picture(latents: outcome.samples[seed], reference: outcome.references[seed])
                    Picture(latents: outcome.references[seed], reference: outcome.references[seed])
                    Text(decibels(outcome.report.figures.psnr[seed])).font(.caption).monospacedDigit()
                }
            }
        }
    }

    private func decibels(_ value: Double) -> String {
        value.isFinite ? value.formatted(.number.precision(.fractionLength(1))) + " dB" : "not finite"
    }
}
#endif
