"""Whether a graph's inputs and outputs are those its manifest promises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from allmem_runtime import spec
from allmem_runtime.config import Manifest
from allmem_runtime.errors import ModelFileError

_Wanted = dict[str, tuple[str, tuple[int | None, ...]]]
"""Types and shapes by name; None where any length may be."""


class Argument(NamedTuple):
    """An input or output of a graph.

    Args:
        name: its name.
        type: as ONNX Runtime writes it, ``tensor(float)``.
        shape: numbers, and names where it is dynamic.
    """

    name: str
    type: str
    shape: tuple[Any, ...]


def input_shapes(manifest: Manifest) -> dict[str, tuple[int | None, ...]]:
    """The shapes of a graph's inputs by name, as the runtime feeds them."""
    return {name: shape for name, (_, shape) in _expected(manifest)[0].items()}


def _expected(manifest: Manifest) -> tuple[_Wanted, _Wanted]:
    """Inputs and outputs of the contract."""
    inputs: _Wanted = {
        spec.INPUT_IDS: ("tensor(int64)", (1, None)),
        spec.POSITION: ("tensor(int64)", (1,)),
        spec.LOGIT_INDEX: ("tensor(int64)", (None,)),
    }
    outputs: _Wanted = {spec.LOGITS: ("tensor(float)", (1, None, manifest.backbone.vocab_size))}
    types = {"float32": "tensor(float)", "float16": "tensor(float16)", "int8": "tensor(int8)"}
    for layer, tensor in manifest.state:
        kind = types[tensor.element]
        inputs[spec.past_name(layer, tensor.name)] = kind, tensor.shape
        outputs[spec.present_name(layer, tensor.name)] = kind, tensor.shape
    return inputs, outputs


def check_signature(
    graph: Path, manifest: Manifest, inputs: Sequence[Argument], outputs: Sequence[Argument]
) -> None:
    """The graph's inputs and outputs are those of the contract, neither more nor less.

    Args:
        graph: the file, for messages.
        manifest: what the model says of itself.
        inputs: those that it has.
        outputs: the same.

    Raises:
        ModelFileError: one is missing, unknown, or of another type or shape; the text names it.
    """
    expected_in, expected_out = _expected(manifest)
    for what, wanted, arguments in (
        ("input", expected_in, inputs),
        ("output", expected_out, outputs),
    ):
        found = {a.name: (a.type, a.shape) for a in arguments}
        for name in [*wanted, *(name for name in found if name not in wanted)]:
            problem = _problem(wanted.get(name), found.get(name), strict=what == "input")
            if problem:
                raise ModelFileError(
                    f"{graph}: the {what} {name!r} {problem}.",
                    "Graph and manifest come from different exports: export the model again.",
                )


def _problem(
    wanted: tuple[str, tuple[int | None, ...]] | None,
    found: tuple[str, tuple[Any, ...]] | None,
    *,
    strict: bool,
) -> str | None:
    """What is wrong with an argument; nothing if it is None.

    Sizes of inputs are numbers wherever the contract has some: the state is as large as the
    manifest says, and only the graph can vouch for that. Those of outputs may be names, where
    nobody has inferred them.
    """
    if found is None:
        return "is missing"
    if wanted is None:
        return "is unknown to this runtime"
    if wanted[0] != found[0]:
        return f"is {found[0]}, the manifest says {wanted[0]}"
    fits = len(wanted[1]) == len(found[1]) and all(
        want == have if isinstance(have, int) else want is None or not strict
        for want, have in zip(wanted[1], found[1], strict=True)
    )
    return None if fits else f"has the shape {list(found[1])}, the manifest says {list(wanted[1])}"
