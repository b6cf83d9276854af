"""Exporters: AllMem models in PyTorch, conversion of pretrained decoders, export to ONNX."""

from allmem_exporters.errors import ConfigError, ConversionError
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
