// swift-tools-version: 6.0
import PackageDescription

let core = Target.Dependency.product(name: "DQSampler", package: "swift_core")
let generate = Target.Dependency.product(name: "DQGenerate", package: "swift_core")

var targets: [Target] = [
    .executableTarget(name: "dq-run", dependencies: [core, generate, "DQCoreML"])
]

if Context.environment["DQ_STAND_IN"] == nil {
    targets.append(.target(name: "DQCoreML", dependencies: [core, generate]))
} else {
    // Where there is no Core ML: a module that has its names, so that DQCoreML compiles and can be tested (see StandIn/).
    let testing = Target.Dependency.product(name: "DQTesting", package: "swift_core")
    targets += [
        .target(name: "CoreML", path: "StandIn/CoreML"),
        .target(name: "DQCoreML", dependencies: [core, generate, "CoreML"]),
        .testTarget(name: "DQCoreMLTests", dependencies: [core, generate, testing, "DQCoreML", "CoreML"]),
    ]
}

let package = Package(
    name: "coreml",
    platforms: [.macOS(.v15), .iOS(.v18)],
    products: [
        .library(name: "DQCoreML", targets: ["DQCoreML"]),
        .executable(name: "dq-run", targets: ["dq-run"]),
    ],
    dependencies: [.package(path: "../swift_core")],
    targets: targets,
    swiftLanguageModes: [.v6]
)
