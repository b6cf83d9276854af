"""NumPy references of the operators: the truth that every other form is tested against."""

from allmem_ops.reference.attention import quantize, ring_slot, sliding_window_attention
from allmem_ops.reference.memory import FastWeights, ttt_memory

__all__ = ["FastWeights", "quantize", "ring_slot", "sliding_window_attention", "ttt_memory"]
