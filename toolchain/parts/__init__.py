"""The parts of a pipeline beside its network: text encoders and the decoder to pictures, in integers; from a prompt to pixels."""
