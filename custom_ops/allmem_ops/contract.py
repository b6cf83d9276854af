"""What an operator's contract is made of: tensors, attributes and what they allow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

ElementType = Literal["activation", "cache", "float32", "float16", "int64", "uint8"]
"""``activation``: the type of the token stream; ``cache``: the type keys and values are kept in."""

Value = int | float | str


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output: its name, symbolic shape, element type and meaning."""

    name: str
    shape: tuple[str | int, ...]
    element: ElementType
    doc: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: allowed values are ``choices`` for text, ``minimum`` and up for numbers."""

    name: str
    default: Value | None
    doc: str
    kind: Literal["int", "float", "string"]
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    def problem(self, value: object) -> str | None:
        """Say what is wrong with ``value``, or return None."""
        if self.kind == "string":
            if value not in self.choices:
                return f"{self.name} is {value!r}; allowed: {', '.join(self.choices)}"
            return None
        allowed = (int,) if self.kind == "int" else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed):
            return f"{self.name} is {value!r}; it must be a {self.kind}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{self.name} is {value!r}; it must be finite"
        if self.minimum is not None and value < self.minimum:
            return f"{self.name} is {value}; it must be at least {self.minimum:g}"
        if self.maximum is not None and value > self.maximum:
            return f"{self.name} is {value}; it must be at most {self.maximum:g}"
        return None


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of the domain ``ai.allmem``."""

    name: str
    version: int
    doc: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attributes: tuple[Attribute, ...]

    @property
    def state(self) -> tuple[Tensor, ...]:
        """The inputs named ``past_*``; each has an output ``present_*`` of the same shape."""
        return tuple(t for t in self.inputs if t.name.startswith("past_"))

    def attribute_values(self, given: dict[str, Value]) -> dict[str, Value]:
        """Fill in defaults and check every value.

        Raises:
            ValueError: an attribute is unknown, missing or outside its range; the text names
                the operator, the attribute and the value.
        """
        known = {a.name: a for a in self.attributes}
        for name in given:
            if name not in known:
                raise ValueError(f"{self.name}: unknown attribute {name!r}")
        values: dict[str, Value] = {}
        for name, attribute in known.items():
            value = given.get(name, attribute.default)
            if value is None:
                raise ValueError(f"{self.name}: attribute {name!r} is required")
            problem = attribute.problem(value)
            if problem:
                raise ValueError(f"{self.name}: {problem}")
            values[name] = value
        return values
