// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "swift_core",
    platforms: [.macOS(.v15), .iOS(.v18)],
    products: [
        .library(name: "DQSampler", targets: ["DQSampler"]),
        .library(name: "DQGenerate", targets: ["DQGenerate"]),
        .library(name: "DQTesting", targets: ["DQTesting"]),
        .executable(name: "dq-replay", targets: ["dq-replay"]),
    ],
    targets: [
        .target(name: "DQSampler"),
        .target(name: "DQGenerate", dependencies: ["DQSampler"]),
        .target(name: "DQTesting", dependencies: ["DQSampler"]),
        .executableTarget(name: "dq-replay", dependencies: ["DQSampler", "DQGenerate"]),
        .testTarget(name: "DQSamplerTests", dependencies: ["DQSampler", "DQTesting"]),
        .testTarget(name: "DQGenerateTests", dependencies: ["DQGenerate", "DQSampler", "DQTesting"]),
    ],
    swiftLanguageModes: [.v6]
)
