"""How a node of an operator may look: its counts of inputs and outputs, and its attributes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from allmem_runtime.files.node_attributes import (
    FLOAT,
    GRAPH,
    INT,
    INTS,
    STRING,
    TENSOR,
    Attribute,
)

MANY = 1 << 12
"""Inputs or outputs of a node that has any number of them."""

Check = Callable[[Attribute], bool]
"""Whether an attribute is as it may be."""


def whole(low: int = -(1 << 63), high: int = (1 << 63) - 1) -> Check:
    """An integer in a range."""

    def check(given: Attribute) -> bool:
        value = given.value
        return given.type == INT and isinstance(value, int) and low <= value <= high

    return check


def numbers(low: int = -(1 << 63), high: int = (1 << 63) - 1) -> Check:
    """Any count of integers in a range."""

    def check(given: Attribute) -> bool:
        value = given.value
        return given.type == INTS and isinstance(value, tuple) and all(
            low <= number <= high for number in value
        )  # fmt: skip

    return check


def word(*choices: str) -> Check:
    """One of some words."""
    allowed = {choice.encode() for choice in choices}
    return lambda given: given.type == STRING and given.value in allowed


def text(given: Attribute) -> bool:
    """Any text."""
    return given.type == STRING and isinstance(given.value, bytes)


def finite(given: Attribute) -> bool:
    """A finite number."""
    return given.type == FLOAT and isinstance(given.value, float) and math.isfinite(given.value)


def element(given: Attribute) -> bool:
    """A type of numbers: one of those that ONNX had at first, and no text."""
    return given.type == INT and given.value in {*range(1, 14)} - {8}


def tensor(given: Attribute) -> bool:
    """A tensor."""
    return given.type == TENSOR and not given.refers


def graph(given: Attribute) -> bool:
    """A graph."""
    return given.type == GRAPH and not given.refers


def reference(check: Check) -> Check:
    """What is checked, or the value of an attribute of the function around the node."""
    return lambda given: given.refers or check(given)


AXIS = whole(-8, 8)
FLAG = whole(0, 1)


@dataclass(frozen=True, slots=True)
class Form:
    """What the nodes of an operator may have.

    Args:
        inputs: the fewest and the most.
        outputs: the fewest and the most.
        attributes: those that may be there, and what their values may be.
        counts_outputs: name of an attribute that says how many outputs there are.
        one_attribute: whether there must be one attribute, and no other.
        checks_itself: the operator's own code looks at all of this.
    """

    inputs: tuple[int, int]
    outputs: tuple[int, int] = (1, 1)
    attributes: Mapping[str, Check] = field(default_factory=dict)
    counts_outputs: str = ""
    one_attribute: bool = False
    checks_itself: bool = False

    def problem(
        self, inputs: Sequence[str], outputs: Sequence[str], attributes: Sequence[Attribute]
    ) -> str:
        """What is wrong with a node, to follow its operator's name; empty if nothing is.

        Args:
            inputs: names; an empty one is left out.
            outputs: names.
            attributes: all it has.
        """
        if self.checks_itself:
            return ""
        for what, names, (least, most) in (
            ("inputs", inputs, self.inputs),
            ("outputs", outputs, self.outputs),
        ):
            if not least <= len(names) <= most:
                return f"has {len(names)} {what}"
        if not all(inputs):
            return "lacks an input before its last one"
        if len({given.name for given in attributes}) < len(attributes):
            return "has an attribute twice"
        if self.one_attribute and len(attributes) != 1:
            return f"has {len(attributes)} attributes"
        for given in attributes:
            check = self.attributes.get(given.name)
            if check is None:
                return f"has an attribute {given.name[:40]!r}"
            if not check(given):
                return f"has {given.name} {given}"
            if given.name == self.counts_outputs and given.value != len(outputs):
                return f"has {given.name} {given} and {len(outputs)} outputs"
        return ""
