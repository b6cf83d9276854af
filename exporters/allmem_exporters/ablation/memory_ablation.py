"""Disable a model's memory, or freeze it so that it never writes: the models to compare with."""

from __future__ import annotations

import torch

from allmem_exporters.model.decoder import DecoderLayer
from allmem_exporters.model.memory_layer import Memory

SILENCED_RATE = -100.0
"""A logit whose softplus is nothing: a memory with this learning rate never writes."""


@torch.no_grad()
def freeze_writes(memory: Memory) -> None:
    """Set the learning rate of every token to nothing; the memory reads its initial weights."""
    memory.lr_proj.weight.zero_()
    memory.lr_proj.bias.fill_(SILENCED_RATE)


@torch.no_grad()
def restrain_layer(layer: DecoderLayer, memory: str) -> None:
    """Change a layer in place: ``frozen`` stops all writes, ``disabled`` sets alpha to 0."""
    if memory == "frozen":
        freeze_writes(layer.allmem)
    elif memory == "disabled":
        layer.allmem.alpha.zero_()
