"""The PyTorch model: configuration, layers, the operators' torch side, state, checkpoints."""
