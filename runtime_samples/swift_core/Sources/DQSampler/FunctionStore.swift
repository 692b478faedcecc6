/// Holds the function of the present step group and loads the next one in the background; the former one goes.
///
/// Timesteps only fall, so what comes next is known, and two functions in memory are enough whatever the number of groups.
public actor FunctionStore<Function: Sendable> {
    /// Loads a function by name and says how long it took, in milliseconds.
    public typealias Load = @Sendable (String) async throws -> (function: Function, milliseconds: Double)

    private let load: Load
    private let keepAll: Bool
    private var tasks: [String: Task<Function, any Error>] = [:]
    public private(set) var times: LoadTimes

    /// - Parameters: keepAll: nothing is let go, memory permitting. times: what was compiled before.
    public init(keepAll: Bool = false, times: LoadTimes = LoadTimes(), load: @escaping Load) {
        (self.keepAll, self.times, self.load) = (keepAll, times, load)
    }

    /// The function of this name, loaded by now; `next` begins to load, all others go.
    /// - Throws: what `load` throws. The name can be asked for again afterwards.
    public func use(_ name: String, next: String?) async throws -> Function {
        if !keepAll {
            for other in tasks.keys where other != name && other != next { tasks[other] = nil }
        }
        do {
            let function = try await task(name).value
            if let next { _ = task(next) }  // not before: two loads at a time would slow down the one that is waited for
            return function
        } catch {
            tasks[name] = nil
            throw error
        }
    }

    private func task(_ name: String) -> Task<Function, any Error> {
        if let task = tasks[name] { return task }
        let task = Task.detached(priority: .utility) { [load] in
            let (function, milliseconds) = try await load(name)
            await self.note(name, milliseconds)
            return function
        }
        tasks[name] = task
        return task
    }

    private func note(_ name: String, _ milliseconds: Double) { times.loaded(name, milliseconds: milliseconds) }
}
