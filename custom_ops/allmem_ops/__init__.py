"""The AllMem operators: their contract, their NumPy reference and the native library."""

from allmem_ops.contract import Operator
from allmem_ops.kernel_fields import kernel_fields
from allmem_ops.schema import DOMAIN, OPERATORS

__all__ = ["DOMAIN", "OPERATORS", "Operator", "kernel_fields"]
