#if canImport(CoreAI)
import CoreAI

/// Where the elements of an array lie in its memory, in row-major order of their indices.
@available(macOS 27, iOS 27, *)
struct ArrayLayout {
    /// Offsets in elements, by index, of every dimension.
    private let offsets: [[Int]]

    init(_ array: NDArray) {
        let strides = array.strides, interleave = array.interleaveLayout
        offsets = array.shape.enumerated().map { dimension, length in
            (0..<length).map { index in
                guard let interleave, interleave.dimension == dimension else { return index * strides[dimension] }
                let factor = interleave.factor  // elements of a block lie side by side, the stride is that of blocks
                return index / factor * strides[dimension] + index % factor
            }
        }
    }

    /// Calls `body` with the offset of every element.
    func forEach(_ body: (Int) -> Void) { visit(0, 0, body) }

    private func visit(_ dimension: Int, _ start: Int, _ body: (Int) -> Void) {
        guard dimension < offsets.count else { return body(start) }
        for offset in offsets[dimension] { visit(dimension + 1, start + offset, body) }
    }
}
#endif
