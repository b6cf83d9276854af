"""The commands that need PyTorch: one file each."""
