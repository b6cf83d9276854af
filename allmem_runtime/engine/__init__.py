"""Running a graph: devices, operators, buffers, one step. No other room knows ONNX Runtime."""
