"""Exporters: AllMem models in PyTorch, conversion of pretrained decoders, export to ONNX."""

import os
from typing import TYPE_CHECKING

from allmem_exporters.errors import ConfigError, ConversionError
from allmem_runtime.lazy_names import lazy_names

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

__getattr__, __dir__ = lazy_names(globals(), _LATER)
