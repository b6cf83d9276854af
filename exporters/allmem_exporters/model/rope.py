"""Rotary frequencies of a configuration, exactly those the pretrained model was trained with.

It knows no positions and no angles; those are the operator's.
"""

from __future__ import annotations

from copy import copy

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.rope_options import FACTORS


def rotary_frequencies(config: AllMemConfig, layer: int) -> tuple[tuple[float, ...], float]:
    """Radians per position of each rotated pair of a layer, and the factor on cos and sin.

    The scaled kinds are computed by transformers' own functions and the plain kind in the same
    float32 steps, so a converted model turns by exactly the angles it learned with. Plain numbers
    are returned, not a tensor: no change of the model's device or type can round them.

    Args:
        config: a checked configuration.
        layer: index of the layer.

    Returns:
        ``rotary_dim // 2`` frequencies, each exactly a float32, and the amplitude (YaRN's
        attention factor; 1 for the other kinds). All are 0 where positions turn nothing.
    """
    if not config.rotates(layer):
        return (0.0,) * (config.rotary_dim // 2), 1.0
    rope = config.rope_parameters
    if config.is_local(layer) and config.local_rope_parameters is not None:
        rope = config.local_rope_parameters
    kind = rope["rope_type"]
    with torch.device("cpu"):  # from_pretrained builds models on the meta device, without numbers
        if kind in ("default", FACTORS):
            dim = config.rotary_dim
            steps = torch.arange(0, dim, 2, dtype=torch.float32) / dim
            frequencies = 1.0 / (rope["rope_theta"] ** steps)
            if kind == FACTORS:
                frequencies /= torch.tensor(rope[FACTORS], dtype=torch.float32)
            amplitude = 1.0
        else:
            turning = copy(config)
            turning.rope_parameters = rope
            frequencies, amplitude = ROPE_INIT_FUNCTIONS[kind](turning, device="cpu")
    return tuple(frequencies.tolist()), float(amplitude)
