"""Networks in the formats of other projects: PyTorch, StableHLO, ONNX."""
