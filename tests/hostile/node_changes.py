"""What a hostile graph may do to a node of ours: each change spoils one thing, chosen by chance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from allmem_ops.schema import KNOWN
from tests.hostile.node_case import TYPES, Given, dtype_of

HUGE = (1 << 20, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 62) + 1, (1 << 63) - 1)
"""Lengths that overflow 32 bits, or 64 bits once they are multiplied."""

MOST_NUMBERS = 1 << 20

INTEGERS = (-(1 << 63), -1, 0, 1, 2, 3, 5, 127, 1 << 30, 1 << 31, 1 << 62, (1 << 63) - 1)
FLOATS = (0.0, -0.0, -1.0, 1e-45, 1e-12, 1.0, 3e38, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "none", "silu", "l2", "true", "\0", "a" * 5000, "%s%n", "é")


class Draft:
    """A node while it is being spoilt; see ``NodeCase`` for the fields."""

    def __init__(self, operator: str, attributes: dict[str, Any], inputs: dict[str, Given]) -> None:
        self.operator = operator
        self.attributes = attributes
        self.inputs: dict[str, Given | None] = dict(inputs)
        self.outputs: dict[str, str | None] = {}
        self.aliases: dict[str, str] = {}
        self.in_place: dict[str, str] = {}
        self.version = 2

    def given(self, generator: np.random.Generator) -> tuple[str, Given]:
        """An input that is there, by chance; the first one if all were taken away."""
        there = [(name, given) for name, given in self.inputs.items() if given is not None]
        if not there:
            name = next(iter(self.inputs))
            self.inputs[name] = Given.of(np.zeros((1, 1, 1), np.float32))
            there = [(name, self.inputs[name])]  # type: ignore[list-item]
        return there[generator.integers(len(there))]


Change = Callable[[Draft, np.random.Generator], str]


def fitted(given: Given, dims: tuple[int, ...]) -> Given:
    """The same numbers, repeated or cut off, in another shape; empty if it would be large."""
    if math.prod(dims) > MOST_NUMBERS:
        dims = (0, *dims[1:])
    count = math.prod(dims)
    dtype = dtype_of(given.element)
    numbers = np.frombuffer(given.data, dtype)
    numbers = np.resize(numbers, count) if len(numbers) else np.ones(count, dtype)
    return replace(given, dims=dims, data=numbers.tobytes())


def drop_input(draft: Draft, generator: np.random.Generator) -> str:
    name, _ = draft.given(generator)
    draft.inputs[name] = None
    return f"without the input {name}"


def cut_inputs(draft: Draft, generator: np.random.Generator) -> str:
    kept = int(generator.integers(1, len(draft.inputs) + 1))
    draft.inputs = dict(list(draft.inputs.items())[:kept])
    return f"only {kept} inputs"


def drop_output(draft: Draft, generator: np.random.Generator) -> str:
    name = str(generator.choice(list(draft.outputs)))
    draft.outputs[name] = None
    draft.in_place.pop(name, None)
    return f"without the output {name}"


def cut_outputs(draft: Draft, generator: np.random.Generator) -> str:
    kept = int(generator.integers(1, len(draft.outputs) + 1))
    draft.outputs = dict(list(draft.outputs.items())[:kept])
    draft.in_place = {new: old for new, old in draft.in_place.items() if new in draft.outputs}
    return f"only {kept} outputs"


def add_input(draft: Draft, generator: np.random.Generator) -> str:
    _, like = draft.given(generator)
    draft.inputs["surplus"] = like
    return "one input more"


def add_output(draft: Draft, generator: np.random.Generator) -> str:
    draft.outputs["surplus"] = str(generator.choice(["float32", "float16", "int8"]))
    return "one output more"


def change_axis(draft: Draft, generator: np.random.Generator) -> str:
    name, given = draft.given(generator)
    if not given.dims or given.is_huge:
        return "nothing"
    axis = int(generator.integers(len(given.dims)))
    old = given.dims[axis]
    new = int(generator.choice([0, 1, old + 1, max(0, old - 1), 2 * old, 33]))
    dims = given.dims[:axis] + (new,) + given.dims[axis + 1 :]
    draft.inputs[name] = fitted(given, dims)
    return f"{name} is {dims}"


def change_axis_everywhere(draft: Draft, generator: np.random.Generator) -> str:
    """All axes of one length get another one, as if the model were of that size."""
    lengths = {n for g in draft.inputs.values() if g is not None for n in g.dims if n < 1 << 16}
    if not lengths:
        return "nothing"
    old = int(generator.choice(sorted(lengths)))
    new = int(generator.choice([0, 0, 1, old + 1, *HUGE]))
    for name, given in draft.inputs.items():
        if given is None or old not in given.dims:
            continue
        dims = tuple(new if n == old else n for n in given.dims)
        if new <= 64 or 0 in dims:
            draft.inputs[name] = fitted(given, dims)
    return f"{new} for {old} everywhere"


def empty_and_huge(draft: Draft, generator: np.random.Generator) -> str:
    """Axes so long that their product overflows, beside one of length 0: no memory is needed."""
    name, given = draft.given(generator)
    if len(given.dims) < 2:
        return "nothing"
    dims = list(given.dims)
    empty, *others = generator.permutation(len(dims))
    dims[empty] = 0
    for axis in others[: int(generator.integers(1, len(others) + 1))]:
        dims[axis] = int(generator.choice(HUGE))
    draft.inputs[name] = fitted(given, tuple(dims))
    return f"{name} is {tuple(dims)}"


def change_rank(draft: Draft, generator: np.random.Generator) -> str:
    name, given = draft.given(generator)
    if given.is_huge:
        return "nothing"
    count = math.prod(given.dims)
    shapes = [(), (count,), (1, *given.dims), (*given.dims, 1), given.dims[1:], given.dims[:-1]]
    shapes += [(1,) * (8 - len(given.dims)) + given.dims, (1,) * 9 + given.dims]
    shapes.append(given.dims[::-1])
    dims = shapes[generator.integers(len(shapes))]
    draft.inputs[name] = fitted(given, dims)
    return f"{name} is {dims}"


def change_type(draft: Draft, generator: np.random.Generator) -> str:
    name, given = draft.given(generator)
    element = str(generator.choice(list(TYPES)))
    if given.is_huge:
        draft.inputs[name] = replace(given, element=element)
    else:
        with np.errstate(all="ignore"):
            numbers = given.array.astype(dtype_of(element))
        source = "weight" if element == "bfloat16" else given.source  # it cannot be fed
        draft.inputs[name] = replace(Given.of(numbers), source=source)
    return f"{name} is {element}"


def change_output_type(draft: Draft, generator: np.random.Generator) -> str:
    name = str(generator.choice(list(draft.outputs)))
    draft.outputs[name] = str(generator.choice(list(TYPES)))
    return f"{name} is {draft.outputs[name]}"


def change_numbers(draft: Draft, generator: np.random.Generator) -> str:
    name, given = draft.given(generator)
    if not given.data:
        return "nothing"
    numbers = given.array.copy()
    flat = numbers.reshape(-1)
    at = slice(None) if generator.integers(3) == 0 else generator.integers(len(flat))
    if given.element in ("bfloat16", "bool"):
        return "nothing"
    if numbers.dtype.kind == "f":
        with np.errstate(all="ignore"):
            flat[at] = numbers.dtype.type(generator.choice([*FLOATS, 6e4, 65505.0, 1e9, -3e38]))
    else:
        bounds = np.iinfo(numbers.dtype)
        wanted = int(generator.choice([*INTEGERS, 1 << 32, (1 << 62) - 3]))
        flat[at] = min(max(wanted, int(bounds.min)), int(bounds.max))
    draft.inputs[name] = replace(given, data=numbers.tobytes())
    return f"{name} holds {flat[at] if isinstance(at, np.integer) else flat[0]}"


def change_attribute(draft: Draft, generator: np.random.Generator) -> str:
    known = [a.name for a in KNOWN[draft.operator].attributes] + ["unknown"]
    name = str(generator.choice(known))
    if generator.integers(5) == 0:
        draft.attributes.pop(name, None)
        return f"without the attribute {name}"
    values: tuple[Any, ...] = (
        int(generator.choice(INTEGERS)),
        int(generator.integers(0, 40)),
        float(generator.choice(FLOATS)),
        TEXTS[generator.integers(len(TEXTS))],
        [int(n) for n in generator.choice(INTEGERS, int(generator.integers(1, 4)))],
        [int(n) for n in generator.integers(1, 40, int(generator.choice([1, 2, 3, 128, 129])))],
        [float(n) for n in generator.choice(FLOATS, 3)],
        ["none", "silu"],
    )
    draft.attributes[name] = values[generator.integers(len(values))]
    return f"{name} = {str(draft.attributes[name])[:60]!r}"


def alias(draft: Draft, generator: np.random.Generator) -> str:
    one, first = draft.given(generator)
    other, second = draft.given(generator)
    if one == other or other in draft.aliases or one in draft.aliases:
        return "nothing"
    if one in draft.aliases.values():
        return "nothing"
    draft.inputs[one] = second
    draft.aliases[one] = other
    draft.in_place = {new: old for new, old in draft.in_place.items() if old != one}
    return f"{one} is the same value as {other}"


def bind_elsewhere(draft: Draft, generator: np.random.Generator) -> str:
    """An output is written over an input that is not its own."""
    name, given = draft.given(generator)
    output = str(generator.choice(list(draft.outputs)))
    if draft.outputs[output] is None or name in draft.aliases or given.is_huge:
        return "nothing"
    draft.inputs[name] = replace(given, source="feed")
    draft.in_place[output] = name
    return f"{output} is written over {name}"


def misalign(draft: Draft, generator: np.random.Generator) -> str:
    name, given = draft.given(generator)
    shift = int(generator.choice([1, 2, 3, 4, 8, 32]))
    draft.inputs[name] = replace(given, source="feed", shift=shift)
    return f"{name} lies {shift} bytes off"


def other_version(draft: Draft, generator: np.random.Generator) -> str:
    draft.version = int(generator.choice([1, 2, 3]))
    return f"version {draft.version}"


CHANGES: tuple[Change, ...] = (
    drop_input,
    cut_inputs,
    drop_output,
    cut_outputs,
    add_input,
    add_output,
    change_axis,
    change_axis,
    change_axis_everywhere,
    change_axis_everywhere,
    empty_and_huge,
    empty_and_huge,
    change_rank,
    change_type,
    change_output_type,
    change_numbers,
    change_numbers,
    change_attribute,
    change_attribute,
    alias,
    bind_elsewhere,
    misalign,
    other_version,
)
