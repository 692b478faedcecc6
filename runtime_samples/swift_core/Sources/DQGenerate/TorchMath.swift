/// What torch's AVX2 kernels compute for 8 numbers at a time, for one: the single precision functions of the Cephes library by
/// Stephen L. Moshier, vectorized by Julien Pommier and Giovanni Garberoglio (avx_mathfun.h, zlib license), here in plain Swift and
/// changed: with a fused multiply-add where torch's compiler makes one.
enum TorchMath {
    /// Natural logarithm, for x from 2^-24 to 1.
    static func log(_ number: Float) -> Float {
        var exponent = number.exponent + 1, x = number.significand / 2  // 0.5 <= x < 1
        if x < 0.707106781186547524 {
            exponent -= 1
            x = (x - 1) + x
        } else {
            x -= 1
        }
        let e = Float(exponent), z = x * x
        var y: Float = 7.0376836292E-2
        for factor in logarithm { y = fused(y, x, factor) }
        y = fused(y * x, z, e * -2.12194440e-4)
        y = fused(z, -0.5, y)
        return fused(e, 0.693359375, x + y)
    }

    /// For x from 0 to 2 pi.
    static func sinAndCos(_ number: Float) -> (sin: Float, cos: Float) {
        let j = (Int32(number * 1.27323954473516) + 1) & ~1, y = Float(j)  // octant, made even
        var x = fused(y, -0.78515625, number)  // the distance from j pi / 4
        x = fused(y, -2.4187564849853515625e-4, x)
        x = fused(y, -3.77489497744594108e-8, x)
        let z = x * x
        var cosine = fused(fused(2.443315711809948E-005, z, -1.388731625493765E-003), z, 4.166664568298827E-002)
        cosine = fused(cosine * z, z, z * -0.5) + 1
        var sine = fused(fused(-1.9515295891E-4, z, 8.3321608736E-3), z, -1.6666654611E-1)
        sine = fused(sine * z, x, x)
        let swapped = j & 2 != 0, s = swapped ? cosine : sine, c = swapped ? sine : cosine
        return (j & 4 != 0 ? -s : s, (j - 2) & 4 == 0 ? -c : c)
    }

    private static let logarithm: [Float] = [
        -1.1514610310E-1, 1.1676998740E-1, -1.2420140846E-1, 1.4249322787E-1, -1.6668057665E-1, 2.0000714765E-1,
        -2.4999993993E-1, 3.3333331174E-1,
    ]

    /// a * b + c, rounded once.
    private static func fused(_ a: Float, _ b: Float, _ c: Float) -> Float { c.addingProduct(a, b) }
}
