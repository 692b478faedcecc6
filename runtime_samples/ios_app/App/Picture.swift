#if canImport(SwiftUI)
import CoreGraphics
import DQSampler
import SwiftUI

/// (C, H, W) latents as a picture, in the range in which PSNR compares them; beyond three channels the first is shown.
/// Samples of other axes, such as (C, T), are no picture.
struct Picture: View {
    let latents: Tensor
    let reference: Tensor

    var body: some View {
        if let image {
            Image(decorative: image, scale: 1).resizable().interpolation(.none).aspectRatio(contentMode: .fit)
        } else {
            Image(systemName: "exclamationmark.triangle")
        }
    }

    private var image: CGImage? {
        guard latents.shape.count == 3 else { return nil }
        let (channels, height, width) = (latents.shape[0], latents.shape[1], latents.shape[2])
        let plane = height * width, convert = toUnit(reference)
        var pixels = [UInt8](repeating: 255, count: 4 * plane)
        for channel in 0..<3 {
            let source = channels == 3 ? channel : 0
            for index in 0..<plane {
                let value = convert(latents.values[source * plane + index])
                pixels[4 * index + channel] = value.isFinite ? UInt8((value * 255).rounded()) : 0
            }
        }
        guard let provider = CGDataProvider(data: Data(pixels) as CFData) else { return nil }
        return CGImage(
            width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 32, bytesPerRow: 4 * width,
            space: CGColorSpaceCreateDeviceRGB(), bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.noneSkipLast.rawValue),
            provider: provider, decode: nil, shouldInterpolate: false, intent: .defaultIntent)
    }
}
#endif
