import DQSampler
import Foundation

#if canImport(ImageIO)
import CoreGraphics
import ImageIO
#endif

extension Picture {
    private static let signature: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]

    /// A PNG file of this size: gray or RGB, with 8 bits for each channel, opaque.
    ///
    /// - Throws: SampleError: it is none, is of another size, or not opaque.
    public init(png file: URL, height: Int, width: Int) throws {
        guard let data = try? Data(contentsOf: file, options: .mappedIfSafe) else {
            throw SampleError("--image: cannot read \(file.path); name a PNG file")
        }
        let name = file.path, head = Array(data.prefix(26))
        guard head.count == 26, Array(head.prefix(8)) == Self.signature else {
            throw SampleError("--image: \(name) is no PNG file; save the picture as one")
        }
        func number(_ start: Int) -> Int { head[start..<start + 4].reduce(0) { $0 << 8 | Int($1) } }
        let (depth, kind) = (head[24], head[25])
        guard depth == 8 || kind == 3 else {
            throw SampleError("--image: \(name) has \(depth) bits per channel, allowed are 8; convert it")
        }
        guard number(16) == width, number(20) == height else {  // before memory is taken
            throw SampleError(
                "--image: \(name) is \(number(16)) x \(number(20)) pixels, the model takes \(width) x \(height); scale or crop it")
        }
        self = try Self.decoded(data, name, height: height, width: width)
    }

    /// The rectangle that a picture fills which covers another one, its middle in the middle: x and y are at most 0.
    public static func covering(
        _ target: (width: Int, height: Int), with size: (width: Int, height: Int)
    ) -> (x: Double, y: Double, width: Double, height: Double) {
        let factor = max(Double(target.width) / Double(size.width), Double(target.height) / Double(size.height))
        let (width, height) = (Double(size.width) * factor, Double(size.height) * factor)
        return ((Double(target.width) - width) / 2, (Double(target.height) - height) / 2, width, height)
    }
}

#if canImport(ImageIO)
extension Picture {
    /// Numbers as they are stored: the context has the picture's own colour space.
    private static func decoded(_ data: Data, _ name: String, height: Int, width: Int) throws -> Picture {
        guard let source = CGImageSourceCreateWithData(data as CFData, nil), let image = CGImageSourceCreateImageAtIndex(source, 0, nil),
            image.width == width, image.height == height
        else { throw SampleError("--image: ImageIO cannot read \(name); save it again") }
        let base = image.colorSpace?.model == .indexed ? image.colorSpace?.baseColorSpace : image.colorSpace
        let isGray = base?.model == .monochrome, channels = isGray ? 1 : 3
        let space = base.flatMap { [.rgb, .monochrome].contains($0.model) ? $0 : nil } ?? CGColorSpaceCreateDeviceRGB()
        guard isOpaque(image) else { throw SampleError("--image: \(name) has pixels that are not opaque; put it on a background first") }
        return try drawn(image, space, channels, CGRect(x: 0, y: 0, width: width, height: height), height: height, width: width)
    }

    /// A photo of any size and format, turned upright, scaled and cropped in its middle to this size, on white.
    ///
    /// - Throws: SampleError: ImageIO does not read it.
    public init(photo data: Data, height: Int, width: Int) throws {
        let side = max(height, width)
        guard let source = CGImageSourceCreateWithData(data as CFData, nil),
            let properties = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [CFString: Any],
            let (wide, high) = (properties[kCGImagePropertyPixelWidth] as? Int).flatMap({ wide in
                (properties[kCGImagePropertyPixelHeight] as? Int).map { (wide, $0) }
            }), wide > 0, high > 0
        else { throw SampleError("the photo cannot be read; choose another") }
        // The longer side so long that the shorter one covers: the whole photo is never decoded at its own size.
        let longest = Int((Double(side) * Double(max(wide, high)) / Double(min(wide, high))).rounded(.up))
        let options: [CFString: Any] = [
            kCGImageSourceCreateThumbnailFromImageAlways: true, kCGImageSourceCreateThumbnailWithTransform: true,
            kCGImageSourceThumbnailMaxPixelSize: min(longest, 16384),
        ]
        guard let image = CGImageSourceCreateThumbnailAtIndex(source, 0, options as CFDictionary),
            let space = CGColorSpace(name: CGColorSpace.sRGB)
        else { throw SampleError("the photo cannot be read; choose another") }
        let place = Self.covering((width, height), with: (image.width, image.height))
        self = try Self.drawn(
            image, space, 3, CGRect(x: place.x, y: place.y, width: place.width, height: place.height), height: height, width: width)
    }

    /// Draws on white and takes the numbers.
    private static func drawn(
        _ image: CGImage, _ space: CGColorSpace, _ channels: Int, _ place: CGRect, height: Int, width: Int
    ) throws -> Picture {
        let stride = channels == 1 ? 1 : 4
        let info = channels == 1 ? CGImageAlphaInfo.none : CGImageAlphaInfo.noneSkipLast
        var bytes = [UInt8](repeating: 255, count: stride * height * width)
        let done = bytes.withUnsafeMutableBytes { memory in
            guard let context = CGContext(
                data: memory.baseAddress, width: width, height: height, bitsPerComponent: 8, bytesPerRow: stride * width, space: space,
                bitmapInfo: info.rawValue)
            else { return false }
            context.interpolationQuality = .high
            context.draw(image, in: place)
            return true
        }
        guard done else { throw SampleError("there is no memory for a picture of \(width) x \(height); free memory, then try again") }
        let pixels = channels == 1 ? bytes : bytes.indices.filter { $0 % 4 != 3 }.map { bytes[$0] }
        return Picture(channels: channels, height: height, width: width, pixels: pixels)
    }

    /// Whether every pixel hides what is behind it.
    private static func isOpaque(_ image: CGImage) -> Bool {
        if [.none, .noneSkipFirst, .noneSkipLast].contains(image.alphaInfo) { return true }
        var alpha = [UInt8](repeating: 0, count: image.width * image.height)
        return alpha.withUnsafeMutableBytes { memory in
            guard let context = CGContext(
                data: memory.baseAddress, width: image.width, height: image.height, bitsPerComponent: 8, bytesPerRow: image.width,
                space: CGColorSpaceCreateDeviceGray(), bitmapInfo: CGImageAlphaInfo.alphaOnly.rawValue)
            else { return false }
            context.draw(image, in: CGRect(x: 0, y: 0, width: image.width, height: image.height))
            return memory.allSatisfy { $0 == 255 }
        }
    }
}
#else
extension Picture {
    private static func decoded(_ data: Data, _ name: String, height: Int, width: Int) throws -> Picture {
        guard let picture = StoredPNG.picture(of: Array(data), height: height, width: width) else {
            throw SampleError(
                "--image: \(name) cannot be read: without ImageIO, which is on Apple systems, only 8-bit gray and RGB without compression "
                    + "and filters are; save it so, or use the C++ programs here")
        }
        return picture
    }
}
#endif
