import DQSampler
import Foundation
import XCTest

/// What is loaded when.
final class FunctionStoreTests: XCTestCase {
    /// Counts itself while it lives.
    private final class Function: Sendable {
        let name: String
        private let counter: Counter

        init(_ name: String, _ counter: Counter) {
            (self.name, self.counter) = (name, counter)
            counter.change(by: 1)
        }

        deinit { counter.change(by: -1) }
    }

    private final class Counter: @unchecked Sendable {
        private let lock = NSLock()
        private var (living, highest, loads) = (0, 0, 0)

        func change(by number: Int) {
            lock.withLock {
                living += number
                highest = max(highest, living)
                if number > 0 { loads += 1 }
            }
        }

        var most: Int { lock.withLock { highest } }
        var loaded: Int { lock.withLock { loads } }
    }

    private func store(_ counter: Counter, keepAll: Bool = false) -> FunctionStore<Function> {
        FunctionStore(keepAll: keepAll) { (Function($0, counter), 10) }
    }

    private func rollouts(_ store: FunctionStore<Function>, _ count: Int) async throws {
        let names = ["g0", "g1", "g2", "g3"]
        var current: Function?
        for step in 0..<count * 8 {
            let group = step % 8 / 2
            current = nil
            current = try await store.use(names[group], next: names[(group + 1) % 4])
            XCTAssertEqual(current?.name, names[group])
        }
    }

    func testOnlyThePresentAndTheNextFunctionLive() async throws {
        let counter = Counter()
        try await rollouts(store(counter), 3)
        XCTAssertLessThanOrEqual(counter.most, 3, "the present, the next, and one that is being let go")
        XCTAssertGreaterThanOrEqual(counter.loaded, 12)
    }

    func testKeepingAllLoadsEachOnce() async throws {
        let counter = Counter(), store = store(counter, keepAll: true)
        try await rollouts(store, 3)
        XCTAssertEqual(counter.loaded, 4)
        let times = await store.times
        XCTAssertEqual(times.total, 40)
    }

    func testTheNextFunctionLoadsInTheBackground() async throws {
        let counter = Counter(), store = store(counter)
        _ = try await store.use("g0", next: "g1")
        for _ in 0..<1000 where counter.loaded < 2 { try await Task.sleep(for: .milliseconds(5)) }
        XCTAssertEqual(counter.loaded, 2)
        _ = try await store.use("g1", next: nil)
        XCTAssertEqual(counter.loaded, 2, "it was there already")
    }

    func testAFailureComesOutWhereTheFunctionIsUsed() async throws {
        let store = FunctionStore<Int> { name in
            guard name != "bad" else { throw SampleError("refused") }
            return (1, 0)
        }
        let value = try await store.use("good", next: "bad")
        XCTAssertEqual(value, 1)
        do {
            _ = try await store.use("bad", next: nil)
            XCTFail("the failure was lost")
        } catch { XCTAssertEqual(error as? SampleError, SampleError("refused")) }
    }

    func testCompilingIsWhatTheFirstLoadTakesMore() {
        var times = LoadTimes()
        times.compiled(milliseconds: 100)
        for milliseconds in [50.0, 8, 5] { times.loaded("g0", milliseconds: milliseconds) }
        times.loaded("g1", milliseconds: 30)
        XCTAssertEqual(times.total, 180)
        XCTAssertEqual(times.compile, 145)
    }
}
