"""ExportOptions: how a checkpoint is exported; each is declared here once, with its help.

`allmem export`, `allmem eval rows` and `optimum-cli export allmem` take them as flags, ``export``
as keywords. Nothing heavy is imported: their help should not wait for PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from allmem_exporters.errors import ExportError
from allmem_exporters.quantization.formats import KERNELS, WEIGHTS
from allmem_runtime.options import check_choices, option
from allmem_runtime.quantities import parse_bytes, parse_tokens


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a checkpoint is exported.

    Where no chunk is given, one longer than the window is shortened to it. A window as long as
    all that is read makes the attention full. Activations in float16 need weights in float16;
    see docs/float16.md.

    Raises:
        ExportError: a value is unknown, or two contradict each other.
    """

    weights: str | None = option(
        None,
        "How matrices are stored. int8 and int4 make the file smaller and a CPU faster, float16 "
        "only the file smaller.",
        default_note="float32, or the activations' type",
        choices=WEIGHTS,
    )
    matmul_kernel: str | None = option(
        None,
        "Which kernel multiplies int8 and int4: allmem, our own operator, the fastest on x86 CPUs "
        "and for CPUs only; onnxruntime, its MatMulNBits, for GPUs, for other CPUs, and for "
        "programs without our library.",
        default_note="allmem",
        choices=KERNELS,
        former=("products",),
    )
    activations: str = option(
        "float32",
        "Type of everything between tokens and logits: float16 for GPUs.",
        choices=("float32", "float16"),
    )
    kv_cache_dtype: str | None = option(
        None,
        "How keys and values are kept. int8, with a scale for each head of each token, takes half "
        "of float16, on the CPU only.",
        default_note="checkpoint's, usually float16",
        choices=("float16", "float32", "int8"),
        former=("kv",),
    )
    window: int | None = option(
        None,
        "Tokens the attention sees.",
        default_note="checkpoint's",
        parse=parse_tokens,
        metavar="TOKENS",
    )
    windows: Path | None = option(
        None,
        "A head table made by `allmem heads`: every key/value head gets a window of its own, so "
        "that the state's bytes lie where recall needs them.",
        metavar="FILE",
    )
    state_budget: int | None = option(
        None,
        "Bytes of the whole state, such as 32MiB, within which --windows gives; by default those "
        "of the uniform window.",
        parse=parse_bytes,
        metavar="SIZE",
    )
    sinks: int | None = option(
        None,
        "First tokens that stay visible.",
        default_note="checkpoint's",
        parse=partial(parse_tokens, least=0),
        metavar="TOKENS",
    )
    chunk: int | None = option(
        None,
        "Tokens between commits.",
        default_note="checkpoint's",
        parse=parse_tokens,
        metavar="TOKENS",
    )
    memory: str = option(
        "enabled",
        "frozen: read, never written. disabled: it has no effect. To compare with.",
        choices=("enabled", "frozen", "disabled"),
        former_choices={"on": "enabled", "silent": "disabled"},
    )
    check: bool = option(
        True, "Compare the graph with PyTorch: one pass and random pieces, library and bodies."
    )
    check_tokens: int | None = option(
        None,
        "Length of the compared text.",
        default_note="a bit more than the window",
        parse=parse_tokens,
        metavar="TOKENS",
    )
    force: bool = option(False, "Replace the folder even if it holds something else.")

    def __post_init__(self) -> None:
        """Refuse what cannot be exported before anything is read."""
        check_choices(self, ExportError)
        if self.state_budget is not None and self.windows is None:
            raise ExportError(
                "A budget for the state needs a head table, which says what windows are worth.",
                "Name one with --windows; `allmem heads` makes it.",
            )
        if self.activations == "float16" and self.storage != "float16":
            raise ExportError(
                f"Weights stored as {self.storage} do not go with activations in float16: the "
                "products need both in one type.",
                "Leave --weights out, or export with --activations float32.",
            )

    @property
    def storage(self) -> str:
        """How matrices are stored, the default filled in."""
        return self.weights or self.activations
