"""Exporters: AllMem models in PyTorch, conversion of pretrained decoders, export to ONNX."""

import importlib
import os
from typing import TYPE_CHECKING

from allmem_exporters.errors import ConfigError, ConversionError

# Nor do the hub's libraries report what is converted; see allmem_runtime for ONNX Runtime.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    from allmem_exporters.model.config import AllMemConfig
    from allmem_exporters.model.modeling import AllMemForCausalLM, AllMemOutput
    from allmem_exporters.model.state import AllMemState, LayerState

__all__ = [
    "AllMemConfig",
    "AllMemForCausalLM",
    "AllMemOutput",
    "AllMemState",
    "ConfigError",
    "ConversionError",
    "LayerState",
]

# Imported on first use: help and options need not wait for PyTorch.
_LATER = {
    "AllMemConfig": "allmem_exporters.model.config",
    "AllMemForCausalLM": "allmem_exporters.model.modeling",
    "AllMemOutput": "allmem_exporters.model.modeling",
    "AllMemState": "allmem_exporters.model.state",
    "LayerState": "allmem_exporters.model.state",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
