"""The architectures of GGUF files that are read: each file of this folder has some.

Names and layouts are those of llama.cpp's converter and of its graphs:
https://github.com/ggml-org/llama.cpp/tree/master/conversion and
https://github.com/ggml-org/llama.cpp/tree/master/src/models
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from allmem_exporters.sources.gguf_architectures.architecture import Architecture

__all__ = ["ARCHITECTURES", "Architecture"]


def _found() -> dict[str, Architecture]:
    modules = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))
    found = [one for module in modules for one in getattr(module, "ARCHITECTURES", ())]
    return {one.name: one for one in sorted(found, key=lambda one: one.name)}


ARCHITECTURES = _found()
"""By ``general.architecture``."""
