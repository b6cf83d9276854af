"""The operators for PyTorch: differentiable, opaque to tracing, state in and state out.

Each is a `torch.library` operator around a plain tensor function. Its gradient runs that function
again, so only inputs are kept between forward and backward: a checkpoint for every piece.
"""

from allmem_exporters.model.operators.attention import attention_operator
from allmem_exporters.model.operators.experts import expert_matmul
from allmem_exporters.model.operators.memory import ttt_memory

__all__ = ["attention_operator", "expert_matmul", "ttt_memory"]
