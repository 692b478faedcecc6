public protocol MLShapedArrayScalar {
    init(_ value: Float)
    var asFloat: Float { get }
}

extension Float: MLShapedArrayScalar {
    public var asFloat: Float { self }
}

extension Int32: MLShapedArrayScalar {
    public var asFloat: Float { Float(self) }
}

public struct MLShapedArray<Scalar: MLShapedArrayScalar> {
    public let shape: [Int]
    public let scalars: [Scalar]

    public init<S: Sequence>(scalars: S, shape: [Int]) where S.Element == Scalar {
        (self.scalars, self.shape) = (Array(scalars), shape)
    }

    public init(converting multiArray: MLMultiArray) {
        self.init(scalars: multiArray.values.map { Scalar($0) }, shape: multiArray.shape)
    }
}

open class MLMultiArray {
    let values: [Float]
    let shape: [Int]

    init(_ values: [Float], _ shape: [Int]) { (self.values, self.shape) = (values, shape) }
}

open class MLFeatureValue {
    public let multiArrayValue: MLMultiArray?

    public init<Scalar: MLShapedArrayScalar>(shapedArray: MLShapedArray<Scalar>) {
        multiArrayValue = MLMultiArray(shapedArray.scalars.map(\.asFloat), shapedArray.shape)
    }
}

public protocol MLFeatureProvider: AnyObject {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

open class MLDictionaryFeatureProvider: MLFeatureProvider {
    private let dictionary: [String: Any]

    public init(dictionary: [String: Any]) throws { self.dictionary = dictionary }

    public var featureNames: Set<String> { Set(dictionary.keys) }
    public func featureValue(for featureName: String) -> MLFeatureValue? { dictionary[featureName] as? MLFeatureValue }
}
