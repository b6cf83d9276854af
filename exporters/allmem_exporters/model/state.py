"""AllMemState: what the model keeps between two pieces, in PyTorch tensors.

Names, shapes and order are those of ``allmem_runtime.spec``; the position belongs to the caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from allmem_exporters.model.config import AllMemConfig
from allmem_runtime.spec import StateSpec


class LayerState(NamedTuple):
    """State of one layer; shapes in ``allmem_ops.schema``."""

    key: Tensor
    value: Tensor
    weights: Tensor
    momentum: Tensor
    gradient: Tensor
    momentum_sum: Tensor
    conv_tail: Tensor
    scale: Tensor | None = None  # of int8 keys and values

    def tensors(self) -> tuple[Tensor, ...]:
        """Those that are there, in the order of the specification."""
        return (self.key, self.value, *self.memory, *self.rings[2:])

    @property
    def rings(self) -> tuple[Tensor, ...]:
        """What the attention keeps."""
        return (self.key, self.value) if self.scale is None else (self.key, self.value, self.scale)

    @property
    def memory(self) -> tuple[Tensor, ...]:
        """What the memory keeps."""
        return (self.weights, self.momentum, self.gradient, self.momentum_sum, self.conv_tail)


def layer_size(tensors: Sequence[Tensor]) -> int:
    """How many of ``tensors``, which begin with a layer's key, make a layer."""
    scaled = bool(tensors) and tensors[0].dtype == torch.int8
    return len(LayerState._fields) - (0 if scaled else 1)


def state_spec(config: AllMemConfig) -> StateSpec:
    """The state of a model with this configuration, as the runtime describes it (batch 1)."""
    return StateSpec.build(
        layers=config.num_hidden_layers,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        window=config.window,
        windows=config.windows,
        local_layers=config.local_layers or (),
        local_window=config.local_window,
        sinks=config.sinks,
        cache=config.cache_dtype,  # type: ignore[arg-type]
        memory_heads=config.mem_heads,
        memory_width=config.mem_width,
        memory_hidden=config.mem_hidden,
        kernel=config.conv_kernel,
    )


def blank_layer(
    config: AllMemConfig,
    index: int,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> LayerState:
    """The state of one layer before the first token; see ``AllMemState.blank``."""
    wide = dtype == torch.float64
    tensors = [
        torch.zeros(
            (batch, *tensor.shape[1:]),
            dtype=torch.float64
            if wide and tensor.element != "int8"
            else getattr(torch, tensor.element),
            device=device,
        )
        for tensor in state_spec(config).layers[index]
    ]
    return LayerState(*tensors)


@dataclass(frozen=True, slots=True)
class AllMemState:
    """The state of all layers. Every step makes a new one; nothing is written in place."""

    layers: tuple[LayerState, ...]

    @classmethod
    def blank(
        cls,
        config: AllMemConfig,
        batch: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> AllMemState:
        """The state before the first token: zeros, which the memory replaces at position 0.

        Args:
            config: sizes.
            batch: rows; all rows share one position.
            dtype: type of the model. The memory is float32 whatever it is, and keys and values
                have the configured cache type; only for float64, where the arithmetic itself is
                being examined, everything but int8 is float64.
            device: where the tensors live.
        """
        layers = range(config.num_hidden_layers)
        return cls(tuple(blank_layer(config, at, batch, dtype, device) for at in layers))

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor]) -> AllMemState:
        """The reverse of ``list(state)``."""
        size = layer_size(tensors)
        if not tensors or len(tensors) % size:
            raise ValueError(f"{len(tensors)} tensors are not a whole number of layers of {size}")
        return cls(tuple(LayerState(*tensors[i : i + size]) for i in range(0, len(tensors), size)))

    def __iter__(self) -> Iterator[Tensor]:
        """Every tensor, layer after layer, in the order of the specification."""
        for layer in self.layers:
            yield from layer.tensors()

    def detach(self) -> AllMemState:
        """The same values without the graph that made them (truncated backpropagation)."""
        return AllMemState.from_tensors([tensor.detach() for tensor in self])
