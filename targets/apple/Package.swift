// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "Vaquita",
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [.library(name: "Vaquita", targets: ["Vaquita"])],
    targets: [
        // build-xcframework.sh makes it.
        .binaryTarget(name: "CVaquita", path: "CVaquita.xcframework"),
        .target(name: "Vaquita", dependencies: ["CVaquita"]),
    ]
)
