"""A model of transformers without values: only what it computes from its configuration is there."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from allmem_exporters.errors import ConversionError
from allmem_exporters.hub_kernels_off import without_hub_kernels
from allmem_runtime.quantities import format_bytes

MOST_BYTES = 1 << 30
"""Of buffers and vectors: what a model without its matrices takes."""


def empty_model(
    config: PretrainedConfig, attention: str = "eager", divisors: Sequence[float] | None = None
) -> PreTrainedModel:
    """Build a language model on the device ``meta``.

    Args:
        config: of transformers; stays as it is.
        attention: which function its attentions call.
        divisors: of its rope's frequencies, which transformers has no setting for.

    Raises:
        ConversionError: its buffers would take more than ``MOST_BYTES``.

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
    _check_tables(model)
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


def _check_tables(model: PreTrainedModel) -> None:
    """Refuse tables that are made of a configuration alone, such as numbers of all positions."""
    vectors = [one for one in model.parameters() if one.dim() < 2]
    size = sum(one.nbytes for one in (*model.buffers(), *vectors))
    if size > MOST_BYTES:
        raise ConversionError(
            f"The tables of a {model.config.model_type} decoder of these sizes take "
            f"{format_bytes(size)} beside its matrices; at most {format_bytes(MOST_BYTES)} are "
            "made.",
            "See that config.json is that of the weights; max_position_embeddings often decides.",
        )
