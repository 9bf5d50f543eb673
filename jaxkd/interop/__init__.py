"""Networks of other projects in, and ours out: PyTorch, StableHLO, ONNX."""
