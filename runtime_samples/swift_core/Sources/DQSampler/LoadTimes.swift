/// How long loading took, and how much of it happens only once on a device.
///
/// The first load of a function specialises it for the device, which the system keeps; a later load of the same one shows
/// what loading alone takes. Without a second load the two cannot be told apart.
public struct LoadTimes: Sendable, Equatable {
    private var compiling = 0.0
    private var loads: [String: [Double]] = [:]

    public init() {}

    public mutating func compiled(milliseconds: Double) { compiling += milliseconds }

    public mutating func loaded(_ function: String, milliseconds: Double) { loads[function, default: []].append(milliseconds) }

    /// Compiling, and the first load of every function.
    public var total: Double { compiling + loads.values.compactMap(\.first).reduce(0, +) }

    /// Of it, compiling, and what the first load of a function took beyond the quickest later one.
    public var compile: Double {
        compiling
            + loads.values.map { times in
                guard let first = times.first, let later = times.dropFirst().min() else { return 0 }
                return Swift.max(0, first - later)
            }.reduce(0, +)
    }
}
