"""From a PyTorch model to a checked ONNX model folder."""
