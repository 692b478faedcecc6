// swift-tools-version: 6.0
import PackageDescription

let core = Target.Dependency.product(name: "DQSampler", package: "swift_core")
let generate = Target.Dependency.product(name: "DQGenerate", package: "swift_core")

var targets: [Target] = [
    .executableTarget(name: "dq-run-coreai", dependencies: [core, generate, "DQCoreAI"])
]

if Context.environment["DQ_STAND_IN"] == nil {
    targets.append(.target(name: "DQCoreAI", dependencies: [core, generate]))
} else {
    // Where there is no Core AI: a module that has its names, so that DQCoreAI compiles and can be tested (see StandIn/).
    let testing = Target.Dependency.product(name: "DQTesting", package: "swift_core")
    targets += [
        .target(name: "CoreAI", path: "StandIn/CoreAI"),
        .target(name: "DQCoreAI", dependencies: [core, generate, "CoreAI"]),
        .testTarget(name: "DQCoreAITests", dependencies: [core, generate, testing, "DQCoreAI", "CoreAI"]),
    ]
}

let package = Package(
    name: "coreai",
    platforms: [.macOS(.v15), .iOS(.v18)],  // of the app, which runs Core ML too; Core AI itself is checked for (27)
    products: [
        .library(name: "DQCoreAI", targets: ["DQCoreAI"]),
        .executable(name: "dq-run-coreai", targets: ["dq-run-coreai"]),
    ],
    dependencies: [.package(path: "../swift_core")],
    targets: targets,
    swiftLanguageModes: [.v6]
)
