/// MT19937 (Matsumoto and Nishimura 1998): 32 random bits at a time.
struct MersenneTwister: Sendable {
    private static let size = 624, middle = 397
    private var state: [UInt32]
    private var at = size

    init(seed: UInt32) {
        state = [seed]
        state.reserveCapacity(Self.size)
        for index in 1..<Self.size {
            let before = state[index - 1]
            state.append(1_812_433_253 &* (before ^ (before >> 30)) &+ UInt32(index))
        }
    }

    mutating func next() -> UInt32 {
        if at == Self.size { turn() }
        var bits = state[at]
        at += 1
        bits ^= bits >> 11
        bits ^= (bits << 7) & 0x9D2C_5680
        bits ^= (bits << 15) & 0xEFC6_0000
        return bits ^ (bits >> 18)
    }

    private mutating func turn() {
        for index in 0..<Self.size {
            let joined = (state[index] & 0x8000_0000) | (state[(index + 1) % Self.size] & 0x7FFF_FFFF)
            state[index] = state[(index + Self.middle) % Self.size] ^ (joined >> 1) ^ (joined & 1 == 0 ? 0 : 0x9908_B0DF)
        }
        at = 0
    }
}
