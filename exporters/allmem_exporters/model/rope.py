"""Rotary frequencies of a configuration, exactly those the pretrained model was trained with.

It knows no positions and no angles; those are the operator's.
"""

from __future__ import annotations

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.rope_options import FACTORS


def rotary_frequencies(config: AllMemConfig) -> tuple[tuple[float, ...], float]:
    """Radians per position of each rotated pair, and the factor on cos and sin.

    The scaled kinds are computed by transformers' own functions and the plain kind in the same
    float32 steps, so a converted model turns by exactly the angles it learned with. Plain numbers
    are returned, not a tensor: no change of the model's device or type can round them.

    Args:
        config: a checked configuration.

    Returns:
        ``rotary_dim // 2`` frequencies, each exactly a float32, and the amplitude (YaRN's
        attention factor; 1 for the other kinds).
    """
    kind = config.rope_parameters["rope_type"]
    with torch.device("cpu"):  # from_pretrained builds models on the meta device, without numbers
        if kind in ("default", FACTORS):
            dim = config.rotary_dim
            steps = torch.arange(0, dim, 2, dtype=torch.float32) / dim
            frequencies = 1.0 / (config.rope_parameters["rope_theta"] ** steps)
            if kind == FACTORS:
                frequencies /= torch.tensor(config.rope_parameters[FACTORS], dtype=torch.float32)
            amplitude = 1.0
        else:
            frequencies, amplitude = ROPE_INIT_FUNCTIONS[kind](config, device="cpu")
    return tuple(frequencies.tolist()), float(amplitude)
