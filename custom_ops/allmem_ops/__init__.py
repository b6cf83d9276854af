"""The two AllMem operators: their contract, their NumPy reference and the native library."""

from allmem_ops.schema import DOMAIN, OPERATORS, Operator

__all__ = ["DOMAIN", "OPERATORS", "Operator"]
