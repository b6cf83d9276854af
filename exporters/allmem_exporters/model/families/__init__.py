"""The families of pretrained decoders: each is a file of this folder with a ``FAMILY``.

All of them share one PyTorch model, whose parameters have the names that transformers gives them.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from allmem_exporters.model.families.family import Family

__all__ = ["FAMILIES", "Family", "titles"]


def _found() -> dict[str, Family]:
    """The families of this folder's files, in the order of their names."""
    modules = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))
    families = [module.FAMILY for module in modules if hasattr(module, "FAMILY")]
    return {family.model_type: family for family in families}


FAMILIES = _found()
"""By ``model_type`` of transformers."""


def titles() -> str:
    """All of them for people: ``Llama, Qwen2 or Qwen3``."""
    *first, last = (family.title for family in FAMILIES.values())
    return f"{', '.join(first)} or {last}"
