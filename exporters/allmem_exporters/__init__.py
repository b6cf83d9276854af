"""Exporters: AllMem models in PyTorch, conversion of pretrained decoders, export to ONNX."""

from allmem_exporters.config import AllMemConfig
from allmem_exporters.errors import ConfigError, ConversionError
from allmem_exporters.modeling import AllMemForCausalLM, AllMemOutput
from allmem_exporters.state import AllMemState, LayerState

__all__ = [
    "AllMemConfig",
    "AllMemForCausalLM",
    "AllMemOutput",
    "AllMemState",
    "ConfigError",
    "ConversionError",
    "LayerState",
]
