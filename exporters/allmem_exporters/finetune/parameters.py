"""The memory's parameters: which exist, how each is trained, and how they are stored."""

from __future__ import annotations

import torch
from torch import Tensor

from allmem_exporters.ablation.memory_ablation import freeze_writes
from allmem_exporters.finetune.settings import Optimizer
from allmem_exporters.model.memory_layer import MEMORY, memory_parameters
from allmem_exporters.model.modeling import AllMemForCausalLM

_DECAYED = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight",
            "lr_proj.weight", "mom_proj.weight", "gate_proj.weight")  # fmt: skip


def prepare(model: AllMemForCausalLM, precision: torch.dtype, writes: bool) -> None:
    """Freeze the decoder in ``precision``; the memories learn in float32.

    Args:
        model: changed in place.
        precision: of the decoder's weights and products.
        writes: False makes the memories read only, which is the twin to compare with.
    """
    for name, parameter in model.named_parameters():
        inside = MEMORY in name
        parameter.requires_grad_(inside)
        parameter.data = parameter.data.to(torch.float32 if inside else precision)
    model.tie_weights()
    if not writes:
        for layer in model.model.layers:
            freeze_writes(layer.allmem)
            layer.allmem.lr_proj.requires_grad_(False)


def make_optimizer(model: AllMemForCausalLM, settings: Optimizer) -> torch.optim.AdamW:
    """AdamW over the memories' parameters, in the order of their names."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in memory_parameters(model).items():
        if not parameter.requires_grad:
            continue
        rate = settings.alpha_learning_rate if name.endswith("alpha") else settings.learning_rate
        decay = settings.weight_decay if name.endswith(_DECAYED) else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "lr": rate, "base": rate, "weight_decay": decay}
            for (rate, decay), members in groups.items()
        ],
        betas=settings.betas,
        eps=1e-10,  # the gradients of single channels are far below AdamW's usual 1e-8
    )
