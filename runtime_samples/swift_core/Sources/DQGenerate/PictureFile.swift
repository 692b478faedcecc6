import DQSampler
import Foundation

#if canImport(ImageIO)
import CoreGraphics
import ImageIO

extension Picture {
    /// For a screen, or a file; nil: there is no memory for it.
    public var image: CGImage? {
        guard let provider = CGDataProvider(data: Data(pixels) as CFData) else { return nil }
        let space = channels == 1 ? CGColorSpaceCreateDeviceGray() : CGColorSpaceCreateDeviceRGB()
        return CGImage(
            width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 8 * channels, bytesPerRow: channels * width, space: space,
            bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue), provider: provider, decode: nil,
            shouldInterpolate: false, intent: .defaultIntent)
    }

    /// The bytes of a PNG file.
    /// - Throws: SampleError: ImageIO does not make it.
    public func png() throws -> Data {
        let data = NSMutableData()
        guard let image, let file = CGImageDestinationCreateWithData(data, "public.png" as CFString, 1, nil) else {
            throw SampleError("ImageIO makes no PNG of \(width) x \(height); free memory, then try again")
        }
        CGImageDestinationAddImage(file, image, nil)
        guard CGImageDestinationFinalize(file) else {
            throw SampleError("ImageIO cannot finish a PNG of \(width) x \(height); free memory, then try again")
        }
        return data as Data
    }
}
#else
extension Picture {
    /// The bytes of a PNG file.
    public func png() throws -> Data { StoredPNG.bytes(of: self) }
}
#endif

extension Picture {
    /// - Throws: SampleError: it cannot be written; then there is no file.
    public func write(to file: URL) throws {
        let bytes = try png()
        try WholeFile.write(file, option: "--out") { try $0(bytes) }
    }
}
