import DQSampler
import Foundation

/// torch.Generator("cpu").manual_seed(seed) and torch.randn, bit for bit as torch computes them on x86 with AVX2.
///
/// The logarithm, sine and cosine in float32 are the polynomials of torch's own vectorized kernel, so that no library of the
/// system takes part. torch without AVX2 asks its system's library instead, and differs from this in the last bits.
public struct TorchGenerator: Sendable {
    private static let block = 16
    private var engine: MersenneTwister
    private var kept: Double?

    /// torch takes the low 32 bits of a seed, too.
    public init(seed: UInt64) { engine = MersenneTwister(seed: UInt32(truncatingIfNeeded: seed)) }

    /// The next torch.randn of this shape.
    public mutating func normal(_ shape: [Int]) -> Tensor {
        Tensor(shape: shape, values: normal(count: shape.reduce(1, *)))
    }

    public mutating func normal(count: Int) -> [Float] {
        guard count >= Self.block else { return (0..<count).map { _ in Float(normalDouble()) } }
        var numbers = (0..<count).map { _ in uniform() }
        for start in stride(from: 0, through: count - Self.block, by: Self.block) { Self.toNormal(&numbers, start) }
        if count % Self.block != 0 {  // the last 16 are drawn anew, over some that are done
            for index in count - Self.block..<count { numbers[index] = uniform() }
            Self.toNormal(&numbers, count - Self.block)
        }
        return numbers
    }

    /// Box and Muller: 8 radii and 8 angles become 16 normal numbers.
    private static func toNormal(_ numbers: inout [Float], _ start: Int) {
        for index in start..<start + block / 2 {
            let radius = (-2 * TorchMath.log(1 - numbers[index])).squareRoot()
            let angle = TorchMath.sinAndCos(Float(2 * Double.pi) * numbers[index + block / 2])
            numbers[index] = radius * angle.cos + 0  // torch adds the mean: no zero is negative
            numbers[index + block / 2] = radius * angle.sin + 0
        }
    }

    private mutating func uniform() -> Float {
        Float(engine.next() & ((1 << 24) - 1)) * (1 / Float(1 << 24))
    }

    private mutating func uniformDouble() -> Double {
        let high = UInt64(engine.next()), bits = (high << 32) | UInt64(engine.next())
        return Double(bits & ((1 << 53) - 1)) * (1 / Double(1 << 53))
    }

    private mutating func normalDouble() -> Double {
        if let kept {
            self.kept = nil
            return kept
        }
        let first = uniformDouble(), second = uniformDouble()
        let radius = (-2 * Foundation.log1p(-second)).squareRoot(), angle = 2 * Double.pi * first
        kept = radius * Foundation.sin(angle)
        return radius * Foundation.cos(angle)
    }
}
