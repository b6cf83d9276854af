"""Proof and speed of the CUDA kernels and of whole models on one GPU."""
