import Foundation

/// ||x - y|| / ||y|| in double precision. NaN stays NaN.
public func relativeError(_ x: Tensor, _ y: Tensor) -> Double {
    var difference = 0.0, wanted = 0.0
    for (one, other) in zip(x.values, y.values) {
        let gap = Double(one) - Double(other)
        difference += gap * gap
        wanted += Double(other) * Double(other)
    }
    return difference.squareRoot() / atLeast(Double.leastNormalMagnitude, wanted.squareRoot())
}

/// Peak signal-to-noise ratio in dB of (C, ...) latents as pictures in [0, 1]; at most 100, NaN stays NaN.
///
/// One or three channels of (C, H, W) are pixels in [-1, 1]. Others, and other axes such as (C, T), have the range of `reference`.
public func psnr(_ x: Tensor, _ reference: Tensor) -> Double {
    let convert = toUnit(reference)
    var sum = 0.0
    for (one, other) in zip(x.values, reference.values) {
        let gap = Double(convert(one)) - Double(convert(other))
        sum += gap * gap
    }
    return -10 * log10(atLeast(1e-10, sum / Double(x.values.count)))
}

/// How a value of latents like `reference`, (C, ...), becomes one of a picture in [0, 1].
public func toUnit(_ reference: Tensor) -> (Float) -> Float {
    if reference.shape.count == 3, [1, 3].contains(reference.shape[0]) { return { clampToUnit(($0 + 1) / 2) } }
    guard !reference.values.contains(where: \.isNaN), let low = reference.values.min(), let high = reference.values.max() else {
        return { _ in .nan }
    }
    let width = Swift.max(high - low, Float.leastNormalMagnitude)
    return { clampToUnit(($0 - low) / width) }
}

/// The middle value, the mean of the middle two if there is an even number of them. NaN if any is, or if there is none.
public func median(_ values: [Double]) -> Double {
    guard !values.isEmpty, !values.contains(where: \.isNaN) else { return .nan }
    let sorted = values.sorted(), middle = sorted.count / 2
    if sorted.count % 2 == 1 { return sorted[middle] }
    return (sorted[middle - 1] + sorted[middle]) / 2
}

/// Both comparisons fail for NaN, which passes: min and max of the library would replace it.
private func clampToUnit(_ x: Float) -> Float { x < 0 ? 0 : (x > 1 ? 1 : x) }

private func atLeast(_ floor: Double, _ x: Double) -> Double { x < floor ? floor : x }
