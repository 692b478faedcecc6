"""The network with fake quantization, and what it costs to run and differentiate it."""
