"""MemoryOptions: what a conversion chooses of window and memory; each is declared here once.

`allmem convert` takes them as flags, ``convert`` as keywords; ``AllMemConfig`` has a field of the
same name for each, with its default, its range and the relations between them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

from allmem_ops.schema import SLIDING_WINDOW_ATTENTION, TTT_MEMORY
from allmem_runtime.options import option
from allmem_runtime.quantities import parse_tokens


def _choices(name: str) -> tuple[str, ...]:
    """The choices of an attribute of an operator."""
    attributes = (*SLIDING_WINDOW_ATTENTION.attributes, *TTT_MEMORY.attributes)
    return next(a.choices for a in attributes if a.name == name)


@dataclass(frozen=True, slots=True)
class MemoryOptions:
    """What a conversion chooses of window and memory.

    None leaves an option to the adapter, or else to the default of ``AllMemConfig``. A window
    without a chunk shortens the chunk to its own length if need be. The chunk is at most the
    window, or some tokens would be seen neither by the window nor by the memory.

    Source: arXiv 2602.13680; what the paper leaves open is documented in ``docs``.
    """

    window: int | None = option(
        None,
        "Tokens the attention sees, the token itself included.",
        default_note="1024",
        parse=parse_tokens,
        metavar="TOKENS",
    )
    sinks: int | None = option(
        None,
        "First tokens that are kept permanently, in addition to the window.",
        default_note="64",
        parse=partial(parse_tokens, least=0),
        metavar="TOKENS",
    )
    chunk: int | None = option(
        None,
        "Tokens between commits of the memory.",
        default_note="512, or the window",
        parse=parse_tokens,
        metavar="TOKENS",
    )
    mem_width: int | None = option(
        None, "Total width of the memory's heads.", default_note="512 or 64 a head"
    )
    mem_heads: int | None = option(None, "Memory heads.", default_note="key/value heads")
    mem_hidden_mult: float | None = option(
        None, "Hidden units of a memory head per width.", default_note="2"
    )
    conv_kernel: int | None = option(
        None, "Taps of the convolution on queries, keys and values.", default_note="4"
    )
    lr_init: float | None = option(None, "Initial inner learning rate.", default_note="1e-4")
    theta_rel: float | None = option(
        None,
        "Bound on a chunk's gradient relative to the initial weights; 0 for none.",
        default_note="0.1",
    )
    inner_loss: str | None = option(
        None, "What the memory minimizes.", default_note="neg_dot", choices=_choices("inner_loss")
    )
    norm_schedule: str | None = option(
        None,
        "When the fast weights are normalized.",
        default_note="read_norm_write",
        choices=_choices("norm_schedule"),
    )
    sink_rope: str | None = option(
        None,
        "Distance to the sinks.",
        default_note="clamped",
        choices=_choices("sink_rope"),
    )
    cache_dtype: str | None = option(
        None,
        "Type of keys and values; int8 has a scale for each head of each token.",
        default_note="float16",
        choices=("float16", "float32", "int8"),
        flag="kv-cache-dtype",
        former=("kv",),
    )
    # The following have no flag of their own: `--set NAME=VALUE` gives them.
    mem_residual: bool | None = option(None, "The read adds the query.", on_command_line=False)
    mem_epsilon: float | None = option(None, "Guard of the memory's norms.", on_command_line=False)
    grad_at: str | None = option(
        None,
        "At which weights gradients are taken.",
        choices=_choices("grad_at"),
        on_command_line=False,
    )
    lr_groups: str | None = option(
        None,
        "Learned learning rates: three_per_head (gate, up, down), per_head, or one shared.",
        choices=("three_per_head", "per_head", "shared"),
        on_command_line=False,
    )
    lr_reduce: str | None = option(
        None,
        "How a chunk's gradients are put together.",
        choices=_choices("lr_reduce"),
        on_command_line=False,
    )
    conv_act: str | None = option(
        None,
        "What follows the convolution.",
        choices=_choices("conv_activation"),
        on_command_line=False,
    )
    qk_norm: str | None = option(
        None,
        "Norm of queries and keys; rms_l2 has a learned gain.",
        choices=("rms_l2", "l2"),
        on_command_line=False,
    )
    v_norm: str | None = option(
        None, "Norm of values.", choices=_choices("value_norm"), on_command_line=False
    )
    out_norm: bool | None = option(
        None, "An RMSNorm for each head on what is read.", on_command_line=False
    )
    out_gate: str | None = option(
        None, "The gate of each head.", choices=_choices("out_gate"), on_command_line=False
    )

    def chosen(self) -> dict[str, Any]:
        """The options that were given, as fields of ``AllMemConfig``."""
        return {name: v for name, v in dataclasses.asdict(self).items() if v is not None}
