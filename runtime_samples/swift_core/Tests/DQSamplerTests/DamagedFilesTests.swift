import DQSampler
import Foundation
import XCTest

/// Files that every reader must refuse with one line, never with a crash.
final class DamagedFilesTests: XCTestCase {
    func testGoldenDamagedFiles() throws {
        let folder = Golden.folder.appendingPathComponent("damaged")
        let files = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
        XCTAssertGreaterThanOrEqual(files.count, 18)
        for file in files {
            assertRefused(file.lastPathComponent) {
                if file.pathExtension == "json" {
                    _ = try JSONReader.read(Array(try Data(contentsOf: file)), name: file.lastPathComponent)
                } else {
                    _ = try SafetensorsFile(file)
                }
            }
        }
    }

    func testEveryShorterFileIsRefused() throws {
        let whole = try bytes([("x", Tensor(shape: [2, 3], values: [1, 2, 3, 4, 5, 6]))])
        XCTAssertNoThrow(try SafetensorsFile(whole, name: "whole"))
        for count in 0..<whole.count {
            XCTAssertThrowsError(try SafetensorsFile(whole.prefix(count), name: "short"), "\(count) bytes")
        }
    }

    func testAFlippedByteNeverCrashes() throws {
        let whole = try bytes([("x", Tensor(shape: [2, 3], values: [1, 2, 3, 4, 5, 6]))])
        for index in whole.indices {
            for byte in [UInt8(0), 0xFF, whole[index] ^ 1, whole[index] ^ 0x80] {
                var copy = whole
                copy[index] = byte
                guard let file = try? SafetensorsFile(copy, name: "flipped") else { continue }
                for name in file.names { _ = try? file.block(name) }
            }
        }
    }

    func testOffsetsBeyondAnInteger() {
        let header = #"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551616]}}"#
        assertRefused("data_offsets") { _ = try SafetensorsFile(file(header, body: 8), name: "file") }
    }

    func testEmptyTensorsAndScalarsAreAllowed() throws {
        let header = #"{"e":{"dtype":"F32","shape":[0,4],"data_offsets":[8,8]},"s":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}"#
        let read = try SafetensorsFile(file(header, body: 8), name: "file")
        XCTAssertEqual(try read.block("e"), .float(Tensor(shape: [0, 4], values: [])))
        XCTAssertEqual(try read.block("s"), .integer(IntegerTensor(shape: [], values: [0])))
    }

    func testWhatIsWrittenReadsBack() throws {
        let latents = Tensor(shape: [2, 2], values: [1.5, -0, .infinity, .leastNonzeroMagnitude]), other = Tensor(shape: [1], values: [3])
        let data = try bytes([("latents", latents), ("other", other)])
        let read = try SafetensorsFile(data, name: "file")
        XCTAssertEqual(try read.floats("latents"), latents)
        XCTAssertEqual(try read.floats("latents", at: [1]), Tensor(shape: [2], values: [.infinity, .leastNonzeroMagnitude]))
        assertRefused("nothing lies at [2]") { _ = try read.floats("latents", at: [2]) }
        assertRefused("no tensor 'none'", "latents, other") { _ = try read.floats("none") }
    }

    private func file(_ header: String, body: Int) -> Data {
        withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Data($0) } + Data(header.utf8) + Data(count: body)
    }

    private func bytes(_ tensors: [(name: String, tensor: Tensor)]) throws -> Data {
        var data = Data()
        try SafetensorsWriter(tensors).write { data.append($0) }
        return data
    }
}
