/// What stands around the network in step k, by channel: f = network(inputScale x + inputShift) outputScale + outputShift.
///
/// The scale of the input is the table's; the output is taken after guidance. All in float32.
public struct Correction: Sendable, Equatable {
    private let inputShift: [[Float]]
    private let outputScale: [[Float]]
    private let outputShift: [[Float]]

    /// C, how many numbers a row has.
    public var channels: Int { inputShift[0].count }

    /// - Parameters: json: `table.correction` of bundle.json. calls: how many rows there must be. place: for errors.
    /// - Throws: SampleError: a key is missing or unknown, rows are not alike, or a number is not finite in float32.
    public init(_ json: JSONObject, calls: Int, place: String) throws {
        let keys = ["input_shift", "output_scale", "output_shift"]
        guard Set(json.keys) == Set(keys) else {
            throw SampleError("\(place) must have exactly the keys \(keys), got \(json.keys); export the bundle again")
        }
        func rows(_ key: String) throws -> [[Float]] {
            let here = "\(place).\(key)"
            let rows = try json.required(key, place).asArray(here).map { try $0.asDoubles(here).map { Float($0) } }
            guard rows.count == calls else {
                throw SampleError("\(here) has \(rows.count) rows, there are \(calls) timesteps; export the bundle again")
            }
            guard rows.allSatisfy({ $0.allSatisfy(\.isFinite) }) else {
                throw SampleError("\(here) has a number that is not finite in float32; export the bundle again")
            }
            return rows
        }
        (inputShift, outputScale, outputShift) = (try rows(keys[0]), try rows(keys[1]), try rows(keys[2]))
        let lengths = Set((inputShift + outputScale + outputShift).map(\.count))
        guard lengths.count == 1, !lengths.contains(0) else {
            throw SampleError(
                "\(place) must have rows of as many numbers each, 1 or more, got \(lengths.sorted()); export the bundle again")
        }
    }

    /// Of the calls from `first` on.
    func from(_ first: Int) -> Correction {
        Correction(
            inputShift: Array(inputShift[first...]), outputScale: Array(outputScale[first...]), outputShift: Array(outputShift[first...]))
    }

    private init(inputShift: [[Float]], outputScale: [[Float]], outputShift: [[Float]]) {
        (self.inputShift, self.outputScale, self.outputShift) = (inputShift, outputScale, outputShift)
    }

    /// What the network is given in step k. x: (C, H, W), already scaled.
    public func before(_ x: Tensor, _ k: Int) -> Tensor {
        byChannel(x) { value, channel in value + inputShift[k][channel] }
    }

    /// What the sampler is given in step k. f: (C, H, W), after guidance.
    public func after(_ f: Tensor, _ k: Int) -> Tensor {
        byChannel(f) { value, channel in
            let product = value * outputScale[k][channel]  // rounded before the sum
            return product + outputShift[k][channel]
        }
    }

    private func byChannel(_ x: Tensor, _ change: (Float, Int) -> Float) -> Tensor {
        precondition(x.shape.first == channels, "\(channels) channels for shape \(x.shape)")
        let area = x.shape.dropFirst().reduce(1, *)
        return Tensor(shape: x.shape, values: x.values.enumerated().map { change($1, $0 / area) })
    }
}
