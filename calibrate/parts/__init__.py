"""The other parts of a pipeline in integers: text encoders and the decoder, rounded and measured, with what FP32 gives beside."""
