/// The sampler as numbers: x[k+1] = sum_i a[k][i] x[k-i] + sum_j b[k][j] f[k-j] + c[k] noise[k].
///
/// Coefficients stay in double precision here, so that "is 0" is asked of the number in the file; the arithmetic is float32.
public struct SamplerTable: Sendable, Equatable {
    /// N, what the network is given as its timestep.
    public let timesteps: [Float]
    /// N factors of the network's input.
    public let inputScale: [Float]
    /// Factor of the start noise; nil: the file does not say.
    public let startScale: Float?
    /// What stands around the network, where there is something.
    public private(set) var correction: Correction?
    private let a: [[Double]]
    private let b: [[Double]]
    private let c: [Double]

    /// The number of network calls, N.
    public var calls: Int { timesteps.count }

    /// Whether any step adds noise, which the reference then has to hold.
    public var addsNoise: Bool { c.contains { $0 != 0 } }

    /// - Parameters: json: `table` of bundle.json. place: for errors.
    /// - Throws: SampleError: a key is missing or of another type, lengths differ, or a row reaches before the start.
    public init(_ json: JSONObject, place: String) throws {
        func finite(_ numbers: [Double], _ key: String) throws -> [Double] {
            guard numbers.allSatisfy({ Float($0).isFinite }) else {
                throw SampleError("\(place).\(key) has a number that is not finite in float32; export the bundle again")
            }
            return numbers
        }
        func row(_ key: String) throws -> [Double] {
            try finite(json.required(key, place).asDoubles("\(place).\(key)"), key)
        }
        func rows(_ key: String) throws -> [[Double]] {
            try json.required(key, place).asArray("\(place).\(key)").map { try finite($0.asDoubles("\(place).\(key)"), key) }
        }
        timesteps = try row("timesteps").map { Float($0) }
        inputScale = try row("input_scale").map { Float($0) }
        (a, b, c) = (try rows("a"), try rows("b"), try row("c"))
        let calls = timesteps.count  // the property is not to be had before all are set
        guard calls > 0 else { throw SampleError("\(place) has no timesteps, at least 1 is needed; export the bundle again") }
        for (key, count) in [("a", a.count), ("b", b.count), ("c", c.count), ("input_scale", inputScale.count)] {
            guard count == calls else {
                throw SampleError("\(place).\(key) has \(count) rows, there are \(calls) timesteps; export the bundle again")
            }
        }
        correction = try json["correction"].map {
            try Correction($0.asObject("\(place).correction"), calls: calls, place: "\(place).correction")
        }
        startScale = try json["init_noise_sigma"].map { Float(try $0.asDouble("\(place).init_noise_sigma")) }
        guard (startScale ?? 1).isFinite, startScale ?? 1 > 0 else {
            throw SampleError("\(place).init_noise_sigma must be above 0 and finite in float32; export the bundle again")
        }
        for (key, rows) in [("a", a), ("b", b)] {
            guard Set(rows.map(\.count)).count == 1, rows.allSatisfy({ !$0.isEmpty }) else {
                throw SampleError("\(place).\(key) must have rows of as many numbers each, 1 or more; export the bundle again")
            }
            for (k, row) in rows.enumerated() where row.dropFirst(k + 1).contains(where: { $0 != 0 }) {
                throw SampleError("\(place).\(key)[\(k)] reaches before the start, those must be 0; export the bundle again")
            }
        }
    }

    /// The table of the calls from `first` on, without a correction.
    /// - Throws: SampleError: one of them looks back before it.
    func from(_ first: Int) throws -> SamplerTable {
        for rows in [a, b] {
            for (j, row) in rows[first...].enumerated() where row.dropFirst(j + 1).contains(where: { $0 != 0 }) {
                throw SampleError(
                    "image_to_image: a start at call \(first) looks back on earlier calls, and has no table of its own; export the bundle "
                        + "again")
            }
        }
        return SamplerTable(
            timesteps: Array(timesteps[first...]), inputScale: Array(inputScale[first...]), startScale: startScale, a: Array(a[first...]),
            b: Array(b[first...]), c: Array(c[first...]))
    }

    /// The same with what stands around the network.
    func with(_ correction: Correction?) -> SamplerTable {
        var table = self
        table.correction = correction
        return table
    }

    private init(timesteps: [Float], inputScale: [Float], startScale: Float?, a: [[Double]], b: [[Double]], c: [Double]) {
        (self.timesteps, self.inputScale, self.startScale, correction) = (timesteps, inputScale, startScale, nil)
        (self.a, self.b, self.c) = (a, b, c)
    }

    /// x[k+1] from x[0]...x[k] and f[0]...f[k], in float32.
    ///
    /// - Parameters:
    ///   - latents, outputs: k + 1 each, oldest first, of one shape.
    ///   - noise: of step k; nil where its coefficient is 0.
    public func advance(_ k: Int, latents: [Tensor], outputs: [Tensor], noise: Tensor?) -> Tensor {
        var total = Tensor(zeros: latents[k].shape)
        for (i, factor) in a[k].enumerated() where factor != 0 { total.add(Float(factor), times: latents[k - i]) }
        for (j, factor) in b[k].enumerated() where factor != 0 { total.add(Float(factor), times: outputs[k - j]) }
        if let noise, c[k] != 0 { total.add(Float(c[k]), times: noise) }
        return total
    }

    /// Whether step k adds noise.
    public func addsNoise(at k: Int) -> Bool { c[k] != 0 }
}
