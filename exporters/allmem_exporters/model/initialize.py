"""Initial values of the memory; with them the converted model starts as the pretrained one.

alpha is 0, so at first the memory has no effect. Everything else is chosen so that the memory is
useful as soon as training raises alpha. Every number comes from one seeded generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from allmem_exporters.model.decoder import Decoder
from allmem_exporters.model.layers import WindowAttention
from allmem_exporters.model.memory_layer import Memory
from allmem_exporters.model.norms import exact

PROJECTION_STD = 0.02
CONVOLUTION_NOISE = 0.01


def softplus_inverse(rate: float) -> float:
    """The logit whose softplus is ``rate``: ln(e^rate - 1)."""
    return math.log(math.expm1(rate))


@torch.no_grad()
def initialize_memory(memory: Memory, generator: torch.Generator | None = None) -> None:
    """Set every parameter of a memory to its initial value.

    alpha 0; projections N(0, 0.02^2); convolutions the identity with a little noise; gains 1;
    learning rate exactly ``lr_init`` for every token; fast weights gate and up N(0, 1), so that
    unit queries make pre-activations of order 1, and down N(0, 1 / hidden).

    Args:
        memory: changed in place.
        generator: source of the numbers; None for PyTorch's own.
    """

    def fill(tensor: Tensor, std: float, mean: float = 0.0) -> None:
        numbers = torch.randn(tensor.shape, generator=generator, device=_drawing_device(tensor))
        tensor.copy_(mean + std * numbers)

    for linear in (memory.q_proj, memory.k_proj, memory.v_proj, memory.o_proj):
        fill(linear.weight, PROJECTION_STD)
    for convolution in (memory.q_conv, memory.k_conv, memory.v_conv):
        fill(convolution.weight, CONVOLUTION_NOISE)
        convolution.weight[:, -1] += 1.0
    for name in ("q_norm", "k_norm", "out_norm"):
        if hasattr(memory, name):
            getattr(memory, name).weight.fill_(1.0)
    memory.lr_proj.weight.zero_()
    memory.lr_proj.bias.fill_(softplus_inverse(memory.config.lr_init))
    for name in ("mom_proj", "gate_proj"):
        if hasattr(memory, name):
            fill(getattr(memory, name).weight, PROJECTION_STD)
            getattr(memory, name).bias.zero_()
    fill(memory.fw_gate, 1.0)
    fill(memory.fw_up, 1.0)
    fill(memory.fw_down, memory.config.mem_hidden**-0.5)
    memory.alpha.zero_()


def _drawing_device(tensor: Tensor) -> torch.device:
    # On the CPU, so that a seed gives the same model on every machine; "meta" has no numbers.
    return tensor.device if tensor.device.type == "meta" else torch.device("cpu")


def can_warm_start(memory: Memory) -> bool:
    """Whether memory heads can be taken from attention heads: as many, and not wider."""
    config = memory.config
    return config.mem_heads == config.num_key_value_heads and config.mem_head_dim <= config.head_dim


@torch.no_grad()
def warm_start(memory: Memory, attention: WindowAttention) -> None:
    """Take the memory's projections from the attention's own, before rotation.

    Memory head g keys like key head g, queries like the mean of the query heads of its group,
    takes the values of value head g and writes where that group writes. Where the memory's heads
    are narrower, keys and queries are projected on the strongest directions of the key head, and
    values on those of the value head. Gains of per-head norms are part of the directions; biases
    have no counterpart and are left out.

    Args:
        memory: q, k, v and o projections are changed in place.
        attention: of the same layer, with its pretrained weights.

    Raises:
        ValueError: the head sizes do not allow it; see ``can_warm_start``.
    """
    if not can_warm_start(memory):
        raise ValueError("memory heads are more, fewer or wider than key/value heads")
    config = memory.config
    dim, narrow, groups = config.head_dim, config.mem_head_dim, config.num_key_value_heads
    query = exact(attention.q_proj.weight).reshape(groups, -1, dim, config.hidden_size)
    key = exact(attention.k_proj.weight).reshape(groups, dim, config.hidden_size)
    value = exact(attention.v_proj.weight).reshape(groups, dim, config.hidden_size)
    back = (
        exact(attention.o_proj.scale * attention.o_proj.weight)
        .reshape(config.hidden_size, groups, -1, dim)
        .sum(2)
    )
    if attention.head_norms or attention.whole_norms:
        query = query * exact(attention.q_norm.gain).reshape(-1, dim, 1).unflatten(
            0, (groups, -1) if attention.whole_norms else (1, 1)
        )
        key = key * exact(attention.k_norm.gain).reshape(-1, dim, 1)
    query = query.mean(1)
    back = back.permute(1, 0, 2)  # [groups, hidden_size, dim]
    if narrow < dim:
        of_keys = torch.linalg.svd(key, full_matrices=False).U[..., :narrow].mT
        of_values = torch.linalg.svd(value, full_matrices=False).U[..., :narrow].mT
        query, key, value = of_keys @ query, of_keys @ key, of_values @ value
        back = back @ of_values.mT
    memory.q_proj.weight.copy_(query.reshape(memory.q_proj.weight.shape))
    memory.k_proj.weight.copy_(key.reshape(memory.k_proj.weight.shape))
    memory.v_proj.weight.copy_(value.reshape(memory.v_proj.weight.shape))
    memory.o_proj.weight.copy_(back.permute(1, 0, 2).reshape(memory.o_proj.weight.shape))


@torch.no_grad()
def initialize_memories(decoder: Decoder, seed: int) -> bool:
    """Initialize all memories of a decoder that already has its own weights.

    Args:
        decoder: its memories are changed in place.
        seed: the same seed and decoder give the same memories.

    Returns:
        Whether the memories were warm started from the attention.
    """
    generator = torch.Generator().manual_seed(seed)
    warm = False
    for layer in decoder.layers:
        initialize_memory(layer.allmem, generator)
        warm = can_warm_start(layer.allmem)
        if warm:
            warm_start(layer.allmem, layer.self_attn)
    return warm
