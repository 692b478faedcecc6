import DQSampler
import Foundation
import XCTest

final class MetricsTests: XCTestCase {
    private func picture(_ values: [Float], channels: Int = 1) -> Tensor {
        Tensor(shape: [channels, 1, values.count / channels], values: values)
    }

    func testRelativeError() {
        XCTAssertEqual(relativeError(picture([3, 4]), picture([3, 0])), 4.0 / 3, accuracy: 1e-15)
        XCTAssertEqual(relativeError(picture([1, 2]), picture([1, 2])), 0)
        XCTAssert(relativeError(picture([.nan, 2]), picture([1, 2])).isNaN)
        XCTAssertEqual(relativeError(picture([0, 0]), picture([0, 0])), 0, "nothing is divided by zero")
        XCTAssertEqual(relativeError(picture([3e38, 0]), picture([-3e38, 0])), 2, accuracy: 1e-12, "squares do not overflow")
    }

    func testMedian() {
        XCTAssertEqual(median([3, 1, 2]), 2)
        XCTAssertEqual(median([4, 1, 3, 2]), 2.5)
        XCTAssertEqual(median([1, .infinity]), .infinity)
        XCTAssert(median([1, .nan, 2]).isNaN)
        XCTAssert(median([]).isNaN)
    }

    func testPSNROfPixels() {
        XCTAssertEqual(psnr(picture([-1, 1]), picture([-1, 1])), 100, accuracy: 1e-9)
        XCTAssertEqual(psnr(picture([1, 1]), picture([-1, 1])), -10 * log(0.5) / log(10), accuracy: 1e-12)
        XCTAssertEqual(psnr(picture([5, -7]), picture([1, -1])), 100, accuracy: 1e-9, "clamped")
        XCTAssert(psnr(picture([.nan, 1]), picture([1, 1])).isNaN)
    }

    func testPSNROfLatentsTakesTheRangeOfTheReference() {
        let reference = picture([0, 10, 5, 5], channels: 4)
        XCTAssertEqual(psnr(picture([0, 10, 5, 6], channels: 4), reference), -10 * log(0.01 / 4) / log(10), accuracy: 1e-5)
        XCTAssertEqual(psnr(picture([2, 2], channels: 2), picture([2, 2], channels: 2)), 100, accuracy: 1e-9, "flat")
    }

    func testSamplesOfOtherAxesAreNoPixels() {
        let reference = Tensor(shape: [1, 2], values: [0, 10]), other = Tensor(shape: [1, 2], values: [0, 9])
        XCTAssertEqual(psnr(other, reference), -10 * log(0.01 / 2) / log(10), accuracy: 1e-5)
    }
}
