import Foundation

/// What a report says of the machine.
public struct Machine: Sendable {
    public let model: String
    public let system: String
    public let architecture: String

    public static var current: Machine {
        #if os(macOS)
        let names = [systemText("machdep.cpu.brand_string"), systemText("hw.model")].compactMap { $0 }
        #elseif canImport(Darwin)
        let names = [uname().machine]  // e.g. iPhone16,1
        #else
        let names = [processorName()].compactMap { $0 }
        #endif
        let system = ProcessInfo.processInfo.operatingSystemVersionString
        let model = names.isEmpty ? "unknown" : names.joined(separator: ", ")
        return Machine(model: model, system: "\(uname().name) \(system)", architecture: uname().machine)
    }

    /// Largest resident memory of this process so far, bytes; nil: the system does not say.
    public func peakMemory() -> Int? {
        var usage = rusage()
        #if canImport(Darwin)
        guard getrusage(RUSAGE_SELF, &usage) == 0 else { return nil }
        return Int(usage.ru_maxrss)
        #else
        guard getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 else { return nil }
        return Int(usage.ru_maxrss) * 1024  // Linux counts kilobytes, Darwin bytes
        #endif
    }

    private static func uname() -> (name: String, machine: String) {
        var names = utsname()
        _ = Foundation.uname(&names)
        return (text(of: names.sysname), text(of: names.machine))
    }

    /// C arrays of characters come as tuples.
    private static func text<Characters>(of characters: Characters) -> String {
        withUnsafeBytes(of: characters) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    #if os(macOS)
    private static func systemText(_ name: String) -> String? {
        var size = 0
        guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 0 else { return nil }
        var bytes = [UInt8](repeating: 0, count: size)
        guard sysctlbyname(name, &bytes, &size, nil, 0) == 0 else { return nil }
        return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    #elseif !canImport(Darwin)
    private static func processorName() -> String? {
        let text = try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)
        let line = text?.split(separator: "\n").first { $0.hasPrefix("model name") }
        return line?.split(separator: ":", maxSplits: 1).last.map { $0.trimmingCharacters(in: .whitespaces) }
    }
    #endif
}
