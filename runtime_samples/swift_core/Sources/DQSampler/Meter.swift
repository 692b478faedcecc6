/// Times of the network calls, and how long the rest will take.
struct Meter {
    private let total: Int
    private let start = ContinuousClock.now
    private var done = 0
    private var times: [[Double]]

    init(calls: Int, total: Int) {
        self.total = total
        times = [[Double]](repeating: [], count: calls)
    }

    mutating func count(_ k: Int, milliseconds: Double) -> Run.Progress {
        times[k].append(milliseconds)
        done += 1
        let elapsed = (ContinuousClock.now - start).milliseconds / 1000
        return Run.Progress(done: done, total: total, secondsLeft: elapsed / Double(done) * Double(total - done))
    }

    /// One per step.
    var medians: [Double] { times.map { median($0) } }
}

extension Duration {
    public var milliseconds: Double {
        Double(components.seconds) * 1e3 + Double(components.attoseconds) * 1e-15
    }
}
