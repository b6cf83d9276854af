"""A model of transformers without values: only what it computes from its configuration is there."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from allmem_exporters.hub_kernels_off import without_hub_kernels


def empty_model(
    config: PretrainedConfig, attention: str = "eager", divisors: Sequence[float] | None = None
) -> PreTrainedModel:
    """Build a language model on the device ``meta``.

    Args:
        config: of transformers; stays as it is.
        attention: which function its attentions call.
        divisors: of its rope's frequencies, which transformers has no setting for.

    Returns:
        The model. Its buffers are on the CPU; one that the configuration does not determine is not
        a number.
    """
    with torch.device("meta"), without_hub_kernels():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            deepcopy(config),
            dtype=torch.float32,
            attn_implementation=attention,
            trust_remote_code=False,
        )
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                empty = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")
                known = buffer.dtype.is_floating_point
                module._buffers[name] = empty.fill_(torch.nan) if known else empty.zero_()
        if module._buffers:
            with torch.no_grad():
                model._init_weights(module)
        frequencies = module._buffers.get("inv_freq")
        if divisors is not None and frequencies is not None:
            frequencies /= torch.tensor(divisors, dtype=torch.float32)
    model.eval()
    return model
