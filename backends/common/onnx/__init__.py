"""What targets whose programs are ONNX graphs share: export of the float network, building, reading, audit, execution."""
