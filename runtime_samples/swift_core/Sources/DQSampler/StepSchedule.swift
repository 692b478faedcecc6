/// What changes from step to step: the step group, the method that executes it, and which one comes next.
public struct StepSchedule: Sendable, Equatable {
    /// N group numbers.
    public let groupOfStep: [Int]
    /// One per group, or one for all.
    public let methods: [String]

    /// How many step groups the program has; at fewer steps than were calibrated not all are used.
    public let groups: Int

    /// `step_groups` of an object in bundle.json.
    static func listed(_ json: JSONObject, _ place: String) throws -> [[Int]] {
        try json.required("step_groups", place).asArray("\(place): step_groups").map { group in
            try group.asArray("\(place): step_groups").map { try $0.asInt("\(place): step_groups") }
        }
    }

    /// - Parameter mayBeEmpty: whether a group may have no steps.
    /// - Throws: SampleError: the groups are not the steps in order, a group is empty, or methods and groups do not match.
    public init(stepGroups: [[Int]], methods: [String], calls: Int, place: String, mayBeEmpty: Bool = false) throws {
        var found: [Int] = []
        for (group, steps) in stepGroups.enumerated() {
            guard mayBeEmpty || !steps.isEmpty else { throw SampleError("\(place): step group \(group) is empty; export the bundle again") }
            for step in steps {
                guard step == found.count, step < calls else {
                    throw SampleError(
                        "\(place): step \(step) must be one of 0-\(calls - 1), in order and in one group; export the bundle again")
                }
                found.append(group)
            }
        }
        groupOfStep = found
        guard groupOfStep.count == calls else {
            throw SampleError("\(place): \(calls - groupOfStep.count) of \(calls) steps are in no group; export the bundle again")
        }
        guard methods.count == 1 || methods.count == stepGroups.count else {
            throw SampleError(
                "\(place): \(methods.count) methods for \(stepGroups.count) groups, allowed are 1 or \(stepGroups.count); "
                    + "export the bundle again")
        }
        self.methods = methods
        self.groups = stepGroups.count
    }

    /// Of the calls from `first` on; groups and methods keep their numbers.
    func from(_ first: Int) -> StepSchedule {
        StepSchedule(groupOfStep: Array(groupOfStep[first...]), methods: methods, groups: groups)
    }

    private init(groupOfStep: [Int], methods: [String], groups: Int) {
        (self.groupOfStep, self.methods, self.groups) = (groupOfStep, methods, groups)
    }

    public func method(of step: Int) -> String { methods.count == 1 ? methods[0] : methods[groupOfStep[step]] }

    /// The steps at which each method executes first, in order: what a warm-up has to run.
    public var firstSteps: [Int] {
        var seen: Set<String> = []
        return groupOfStep.indices.filter { seen.insert(method(of: $0)).inserted }
    }

    /// The method that follows the one of `step`; behind the last step the next rollout begins. nil: there is only one.
    public func methodAfter(_ step: Int) -> String? { methodAfter(step, again: true) }

    /// The same; with `again` false nothing follows behind the last step.
    public func methodAfter(_ step: Int, again: Bool) -> String? {
        let steps = groupOfStep.count
        for ahead in 1...steps where (again || step + ahead < steps) && method(of: (step + ahead) % steps) != method(of: step) {
            return method(of: (step + ahead) % steps)
        }
        return nil
    }
}
