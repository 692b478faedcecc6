// swift-tools-version: 6.0
import PackageDescription

let core = Target.Dependency.product(name: "DQSampler", package: "swift_core")
let generate = Target.Dependency.product(name: "DQGenerate", package: "swift_core")
let runtimes: [Target.Dependency] = [.product(name: "DQCoreML", package: "coreml"), .product(name: "DQCoreAI", package: "coreai")]

var targets: [Target] = [
    .target(name: "DQDevice", dependencies: [core, generate] + runtimes)
]

if Context.environment["DQ_STAND_IN"] != nil {
    targets.append(
        .testTarget(
            name: "DQDeviceTests", dependencies: ["DQDevice", core, generate, .product(name: "DQTesting", package: "swift_core")]))
}

let package = Package(
    name: "ios_app",
    platforms: [.macOS(.v15), .iOS(.v18)],
    products: [.library(name: "DQDevice", targets: ["DQDevice"])],
    dependencies: [.package(path: "../swift_core"), .package(path: "../coreml"), .package(path: "../coreai")],
    targets: targets,
    swiftLanguageModes: [.v6]
)
