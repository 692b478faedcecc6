#if canImport(SwiftUI)
import SwiftUI

/// Runs the bundle that lies in the app on this device and hands out the report.
@main
struct DQSampleApp: App {
    var body: some Scene {
        WindowGroup { ContentView() }
    }
}
#endif
