#if !canImport(ImageIO)
import Foundation

/// PNG without compression, for systems without ImageIO: what tests write and read.
enum StoredPNG {
    static func bytes(of picture: Picture) -> Data {
        let rowLength = picture.channels * picture.width
        var rows: [UInt8] = []
        for row in 0..<picture.height {  // each behind the number of its filter, 0: none
            rows += [0] + picture.pixels[row * rowLength..<(row + 1) * rowLength]
        }
        let header = big(picture.width) + big(picture.height) + [8, picture.channels == 1 ? 0 : 2, 0, 0, 0]
        return Data([0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A])
            + chunk("IHDR", header) + chunk("IDAT", zlib(rows)) + chunk("IEND", [])
    }

    /// What `bytes` writes, with any other chunks beside; nil: it is something else, or damaged.
    ///
    /// - Parameters: height, width: those of the file, which its caller compared.
    static func picture(of file: [UInt8], height: Int, width: Int) -> Picture? {
        guard file.count >= 33, [0, 2].contains(file[25]), file[26...28].allSatisfy({ $0 == 0 }) else { return nil }
        let channels = file[25] == 0 ? 1 : 3, rowLength = 1 + channels * width
        guard let content = content(of: file), let rows = stored(content), rows.count == rowLength * height else { return nil }
        var pixels: [UInt8] = []
        for row in 0..<height {
            guard rows[row * rowLength] == 0 else { return nil }
            pixels += rows[row * rowLength + 1..<(row + 1) * rowLength]
        }
        return Picture(channels: channels, height: height, width: width, pixels: pixels)
    }

    /// All that the chunks IDAT hold.
    private static func content(of file: [UInt8]) -> [UInt8]? {
        var at = 8, found: [UInt8] = []
        while at + 12 <= file.count {
            let length = file[at..<at + 4].reduce(0) { $0 << 8 | Int($1) }, end = at + 8 + length
            guard end + 4 <= file.count else { return nil }
            let body = Array(file[at + 4..<end])
            guard Array(file[end..<end + 4]) == big(Int(crc(body))) else { return nil }
            switch Array(body.prefix(4)) {
            case Array("IDAT".utf8): found += body.dropFirst(4)
            case Array("IEND".utf8): return found
            case Array("tRNS".utf8): return nil
            default: break
            }
            at = end + 4
        }
        return nil
    }

    /// What blocks without compression hold.
    private static func stored(_ stream: [UInt8]) -> [UInt8]? {
        var at = 2, found: [UInt8] = []
        while at + 5 <= stream.count {
            let last = stream[at], count = Int(stream[at + 1]) | Int(stream[at + 2]) << 8
            let check = Int(stream[at + 3]) | Int(stream[at + 4]) << 8
            guard last <= 1, count == check ^ 0xFFFF, at + 5 + count <= stream.count else { return nil }
            found += stream[at + 5..<at + 5 + count]
            at += 5 + count
            if last == 1 { return found }
        }
        return nil
    }

    private static func chunk(_ name: String, _ content: [UInt8]) -> [UInt8] {
        let body = Array(name.utf8) + content
        return big(content.count) + body + big(Int(crc(body)))
    }

    /// Blocks of up to 65535 bytes as they are (RFC 1950, 1951).
    private static func zlib(_ bytes: [UInt8]) -> [UInt8] {
        var stream: [UInt8] = [0x78, 0x01], at = 0
        repeat {
            let end = min(at + 0xFFFF, bytes.count), count = UInt16(end - at)
            stream.append(end == bytes.count ? 1 : 0)
            for number in [count, ~count] { stream += [UInt8(number & 0xFF), UInt8(number >> 8)] }
            stream += bytes[at..<end]
            at = end
        } while at < bytes.count
        var low: UInt32 = 1, high: UInt32 = 0  // Adler-32
        for byte in bytes {
            low = (low + UInt32(byte)) % 65521
            high = (high + low) % 65521
        }
        return stream + big(Int(high << 16 | low))
    }

    private static func crc(_ bytes: [UInt8]) -> UInt32 {
        var sum: UInt32 = 0xFFFF_FFFF
        for byte in bytes {
            sum ^= UInt32(byte)
            for _ in 0..<8 { sum = sum & 1 == 0 ? sum >> 1 : sum >> 1 ^ 0xEDB8_8320 }
        }
        return ~sum
    }

    private static func big(_ number: Int) -> [UInt8] { [24, 16, 8, 0].map { UInt8(number >> $0 & 0xFF) } }
}
#endif
