"""Choose where a model runs, and say why. Which providers work is asked of the step module."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from allmem_ops.products import QUANTIZED_MATMUL
from allmem_runtime.errors import DeviceError, UsageError

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
_CUDA = re.compile(r"cuda(?::(\d{1,2}))?\Z")

CUDA_REMEDY = (
    "Install the NVIDIA driver and the CUDA libraries that this onnxruntime was built for "
    "(`allmem doctor` lists them), or use --device cpu."
)

# Shapes and indices may be computed on the CPU; these are the work itself.
_WORK = frozenset({"MatMul", "Gemm", "com.microsoft:MatMulNBits"})
_OURS = "ai.allmem:"

Probe = Callable[[int], str | None]
"""Try a CUDA device by number; None if a graph ran on it, else the reason why not."""
Describe = Callable[[int], object]
"""What a CUDA device is, for people; None if nobody knows."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that was chosen.

    Args:
        name: ``cpu`` or ``cuda``.
        index: number of the CUDA device; 0 for the CPU.
        why: a sentence for the user.
        advice: what the user may do about a card that is not used; empty if there is none.
    """

    name: str
    index: int
    why: str
    advice: str = ""

    @property
    def provider(self) -> str:
        """Name of the execution provider."""
        return CUDA_PROVIDER if self.name == "cuda" else CPU_PROVIDER

    def __str__(self) -> str:
        return f"cuda:{self.index}" if self.name == "cuda" else "cpu"


def choose(
    wanted: str,
    probe: Probe,
    describe: Describe = lambda index: None,
    kv: str = "float16",
    operators: Collection[str] = (),
) -> Device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` into a device that works.

    Args:
        wanted: what the user asked for.
        probe: tries a CUDA device.
        describe: names a CUDA device.
        kv: how the model keeps keys and values; ``int8`` is for the CPU only.
        operators: of ours that the model uses; QuantisedMatMul is for the CPU only.

    Raises:
        UsageError: no such device name.
        DeviceError: CUDA was asked for and cannot be had; the text says why and what to do.
    """
    if wanted == "cpu":
        return Device("cpu", 0, "The CPU was asked for.")
    refusal = _refusal(kv, operators)
    if wanted == "auto":
        if refusal is None:
            problem = probe(0)
            if problem is None:
                why = f"A CUDA device works, and auto prefers it{_what(describe(0))}."
                return Device("cuda", 0, why)
            refusal = _Refusal(f"CUDA cannot be used: {problem}", CUDA_REMEDY)
        card = describe(0)
        advice = f"{card} is not used. {refusal.why}. {refusal.remedy}" if card else ""
        return Device("cpu", 0, f"{refusal.why}.", advice)
    match = _CUDA.match(wanted)
    if not match:
        raise UsageError(f"{wanted!r} is no device.", "Use auto, cpu, cuda or cuda:NUMBER.")
    if refusal:
        raise DeviceError(f"{refusal.why}, so not {wanted}.", refusal.remedy)
    index = int(match[1] or 0)
    problem = probe(index)
    if problem is not None:
        raise DeviceError(f"CUDA device {index} cannot be used: {problem}.", CUDA_REMEDY)
    return Device("cuda", index, f"CUDA device {index} was asked for{_what(describe(index))}.")


class _Refusal(NamedTuple):
    """Why a model cannot run on a card, without a full stop, and what to do."""

    why: str
    remedy: str


def _refusal(kv: str, operators: Collection[str]) -> _Refusal | None:
    """Of what is for the CPU only, what a model has first."""
    if kv == "int8":
        return _Refusal(
            "The model keeps keys and values as int8, for which only the CPU has kernels",
            "Use --device cpu, or export the model with --kv-cache-dtype float16.",
        )
    if QUANTIZED_MATMUL.name in operators:
        return _Refusal(
            f"The model multiplies by {QUANTIZED_MATMUL.name}, which has kernels for the CPU only",
            "Use --device cpu, or export the model with --matmul-kernel onnxruntime.",
        )
    return None


def _what(description: object) -> str:
    return "" if description is None else f" ({description})"


def misplaced(device: Device, providers: Mapping[str, Sequence[str]]) -> list[str]:
    """Operators that do the work and yet run on the CPU, although another device was chosen.

    Args:
        device: what was chosen.
        providers: operator names by provider, as ONNX Runtime recorded them.
    """
    if device.provider == CPU_PROVIDER:
        return []
    names = providers.get(CPU_PROVIDER, ())
    return [name for name in names if name in _WORK or name.startswith(_OURS)]


def without_kernels(
    operators: Collection[str], providers: Mapping[str, Sequence[str]]
) -> list[str]:
    """Operators of ours that no provider runs, so that their function bodies took their place.

    Args:
        operators: of ours that are nodes of the graph.
        providers: operator names by provider; empty if this ONNX Runtime records none.
    """
    if not providers:
        return []
    found = {name for names in providers.values() for name in names}
    return sorted(name for name in operators if _OURS + name not in found)
