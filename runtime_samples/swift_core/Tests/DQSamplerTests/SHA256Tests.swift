import DQSampler
import Foundation
import XCTest

/// Digests published with the standard (FIPS 180-4 examples), and independence of how the bytes come.
final class SHA256Tests: XCTestCase {
    func testPublishedDigests() {
        let known = [
            "": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq":
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            String(repeating: "a", count: 1_000_000): "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
        ]
        for (text, digest) in known { XCTAssertEqual(SHA256.of(Array(text.utf8)), digest) }
    }

    func testPiecesDoNotMatter() async throws {
        let bytes = (0..<300).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        for length in 0...bytes.count {
            let whole = Array(bytes[..<length])
            var digest = SHA256()
            for start in stride(from: 0, to: length, by: 37) {
                whole[start..<min(start + 37, length)].withUnsafeBytes { digest.update($0) }
            }
            XCTAssertEqual(digest.finish(), SHA256.of(whole), "\(length) bytes")
        }
        try await withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("bytes")
            try Data(bytes).write(to: file)
            XCTAssertEqual(try SHA256.of(file: file), SHA256.of(bytes))
            assertRefused("cannot read") { _ = try SHA256.of(file: folder.appendingPathComponent("none")) }
        }
    }
}
