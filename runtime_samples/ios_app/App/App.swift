#if canImport(SwiftUI)
import SwiftUI

/// Draws pictures with the bundle that lies in the app, and runs it for a report.
@main
struct DQSampleApp: App {
    var body: some Scene {
        WindowGroup {
            TabView {
                Tab("Prompt", systemImage: "paintbrush") { PromptView() }
                Tab("Report", systemImage: "checkmark.seal") { ContentView() }
            }
        }
    }
}
#endif
