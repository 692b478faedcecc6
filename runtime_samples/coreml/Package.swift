// swift-tools-version: 6.0
import PackageDescription

var targets: [Target] = [
    .target(name: "DQSampler"),
    .executableTarget(name: "dq-run", dependencies: ["DQSampler", "DQCoreML"]),
    .executableTarget(name: "dq-replay", dependencies: ["DQSampler"]),
    .testTarget(name: "DQSamplerTests", dependencies: ["DQSampler"]),
]

if Context.environment["DQ_STAND_IN"] == nil {
    targets.append(.target(name: "DQCoreML", dependencies: ["DQSampler"]))
} else {
    // Where there is no Core ML: a module that has its names, so that DQCoreML compiles and can be tested (see StandIn/).
    targets += [
        .target(name: "CoreML", path: "StandIn/CoreML"),
        .target(name: "DQCoreML", dependencies: ["DQSampler", "CoreML"]),
        .testTarget(name: "DQCoreMLTests", dependencies: ["DQCoreML", "CoreML"]),
    ]
}

let package = Package(
    name: "dq-sample",
    platforms: [.macOS(.v15), .iOS(.v18)],
    products: [
        .library(name: "DQSampler", targets: ["DQSampler"]),
        .library(name: "DQCoreML", targets: ["DQCoreML"]),
        .executable(name: "dq-run", targets: ["dq-run"]),
        .executable(name: "dq-replay", targets: ["dq-replay"]),
    ],
    targets: targets,
    swiftLanguageModes: [.v6]
)
