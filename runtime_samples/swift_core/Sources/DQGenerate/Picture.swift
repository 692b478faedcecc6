import DQSampler

/// Eight bits for each channel, row by row, the channels of a pixel side by side.
public struct Picture: Sendable, Equatable {
    /// 1 or 3.
    public let channels: Int
    public let height: Int
    public let width: Int
    public let pixels: [UInt8]

    /// `pixels` must be as many as the sizes say, channels 1 or 3.
    public init(channels: Int, height: Int, width: Int, pixels: [UInt8]) {
        precondition([1, 3].contains(channels) && pixels.count == channels * height * width, "\(pixels.count) pixels")
        (self.channels, self.height, self.width, self.pixels) = (channels, height, width, pixels)
    }

    /// (1, 3, H, W) in [-1, 1]; gray becomes three equal channels.
    public var tensor: Tensor {
        let plane = height * width
        var values = [Float](repeating: 0, count: 3 * plane)
        for channel in 0..<3 {
            let own = min(channel, channels - 1)
            for index in 0..<plane { values[channel * plane + index] = Float(pixels[index * channels + own]) / 255 * 2 - 1 }
        }
        return Tensor(shape: [1, 3, height, width], values: values)
    }

    /// - Parameter decoded: (1, C, H, W), about -1 to 1; what is beyond is clamped.
    /// - Throws: SampleError: neither 1 nor 3 channels, or a number is not finite.
    public init(_ decoded: Tensor) throws {
        guard decoded.shape.count == 4, decoded.shape[0] == 1, [1, 3].contains(decoded.shape[1]) else {
            throw SampleError("a picture is (1, 1 or 3, H, W), got \(decoded.shape); this model makes no pictures, export another one")
        }
        try decoded.checkFinite("the picture")
        (channels, height, width) = (decoded.shape[1], decoded.shape[2], decoded.shape[3])
        let plane = height * width
        var pixels = [UInt8](repeating: 0, count: channels * plane)
        for channel in 0..<channels {
            for index in 0..<plane {
                let x = min(max(decoded.values[channel * plane + index], -1), 1)
                pixels[index * channels + channel] = UInt8(((x * 0.5 + 0.5) * 255).rounded(.toNearestOrEven))
            }
        }
        self.pixels = pixels
    }
}
