"""Calibration: fits the fresh memories of a converted model to a sample text.

A key-value memory can only tell two tokens apart whose keys differ. The keys of pretrained
attention lie close together: they share a large mean and few strong directions, which a softmax
does not mind. So the mean is taken out of the memory's keys and they are whitened, with the
queries transformed such that every product of query and key stays what it is in attention, up to
the shared mean that a softmax ignores as well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from allmem_exporters.model.memory_layer import Memory
from allmem_exporters.model.norms import exact

RIDGE = 1e-3
"""Added to a covariance, relative to its mean diagonal: a short text does not span every key."""


@torch.no_grad()
def calibrate(memory: Memory, stream: Tensor) -> None:
    """Whiten the keys of a memory and scale its values to a root mean square of 1.

    Args:
        memory: its projections are changed in place.
        stream: [1, time, hidden_size], the normed token stream of its layer on a text of the kind
            the model reads, a thousand tokens or more.
    """
    whiten_keys(memory, stream)
    scale_values(memory, stream)


@torch.no_grad()
def whiten_keys(memory: Memory, stream: Tensor) -> None:
    """Decorrelate the keys of each head on a text.

    With C the covariance of a head's keys, keys become C^-1/2 k and queries C^1/2 q. The keys'
    mean is taken out by making the projection blind to the mean of the token stream.

    Args:
        memory: its q and k projections are changed in place.
        stream: [1, time, hidden_size], the normed token stream of its layer.
    """
    rows = exact(stream)[0]
    mean = rows.mean(0)
    split = (len(memory.fw_gate), -1, rows.shape[1])
    keys, queries = (exact(p.weight).reshape(split) for p in (memory.k_proj, memory.q_proj))
    keys = keys - (keys @ mean)[..., None] * mean / mean.square().sum()
    seen = rows @ keys.mT  # [heads, time, dim]
    covariance = seen.mT @ seen / len(rows)
    size = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    values, vectors = torch.linalg.eigh(covariance + RIDGE * size * torch.eye(memory.dim))
    spread = values.sqrt()[..., None]
    memory.k_proj.weight.copy_((vectors @ (vectors.mT @ keys / spread)).flatten(0, 1))
    memory.q_proj.weight.copy_((vectors @ (vectors.mT @ queries * spread)).flatten(0, 1))


@torch.no_grad()
def scale_values(memory: Memory, stream: Tensor) -> None:
    """Scale each head's values to a root mean square of 1 on a text.

    The pull of the inner loss on the memory is proportional to the values. Where what is read is
    not normalized, the way back is scaled inversely, so that a value that is recalled arrives in
    the token stream with the size attention would give it.

    Args:
        memory: its v and o projections are changed in place.
        stream: [1, time, hidden_size], the normed token stream of its layer.
    """
    raw = exact(memory.v_proj(stream))
    taps = exact(memory.v_conv.weight)[:, None]
    mixed = functional.conv1d(
        functional.pad(raw.transpose(1, 2), (taps.shape[-1] - 1, 0)), taps, groups=raw.shape[-1]
    )
    heads = mixed.reshape(len(mixed), len(memory.fw_gate), -1, mixed.shape[-1])
    scale = _unit_scale(heads, memory.config.conv_act)
    wide = scale.repeat_interleave(memory.dim)
    memory.v_proj.weight.mul_(wide[:, None])
    if not memory.config.out_norm:
        memory.o_proj.weight.div_(wide)


def _unit_scale(mixed: Tensor, activation: str) -> Tensor:
    """The factor per head of ``mixed`` [batch, heads, dim, time] that makes its rms 1.

    SiLU grows between linearly and quadratically, so half a step in the logarithm converges.
    """
    act = nn.SiLU() if activation == "silu" else nn.Identity()
    scale = torch.ones(mixed.shape[1], dtype=mixed.dtype)
    for _ in range(40):
        size = act(mixed * scale[:, None, None]).square().mean((0, 2, 3)).sqrt()
        scale = scale * size.clamp(min=1e-12).rsqrt()
    return scale
