"""What an operator's contract is made of: tensors, attributes, and what kernels get of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

ElementType = Literal["activation", "cache", "float32", "float16", "int64", "uint8"]
"""``activation``: the type of the token stream; ``cache``: the type keys and values are kept in."""

Value = int | float | str | tuple[int, ...]

ELEMENTS = ("float32", "float16", "bfloat16", "int8")
"""Types of activations and caches; kernels know each by its index."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output: its name, symbolic shape, element type and meaning."""

    name: str
    shape: tuple[str | int, ...]
    element: ElementType
    doc: str
    optional: bool = False
    """Whether a node may lack it."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: allowed values are ``choices`` for text, ``minimum`` and up for numbers.

    ``ints`` are one number for each key/value head.
    """

    name: str
    default: Value | None
    doc: str
    kind: Literal["int", "ints", "float", "string"]
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    native_maximum: int | None = None
    """Where the native kernels stop, so that sums of sizes stay within 64 bits."""
    per_head: bool = False
    """Whether kernels take a number for each key/value head; an ``int`` is that of all."""

    @property
    def field_type(self) -> Literal["int64", "per_head", "float32", "bool", "choice"]:
        """Its type as a kernel's argument; an integer of 0 or 1 is a yes or no."""
        if self.kind == "string":
            return "choice"
        if self.per_head:
            return "per_head"
        if self.kind == "float":
            return "float32"
        return "bool" if (self.minimum, self.maximum) == (0, 1) else "int64"

    def problem(self, value: object) -> str | None:
        """Say what is wrong with ``value``, or return None."""
        if self.kind == "string":
            if value not in self.choices:
                return f"{self.name} is {value!r}; allowed: {', '.join(self.choices)}"
            return None
        if self.kind == "ints":
            if not isinstance(value, tuple) or not value:
                return f"{self.name} is {value!r}; it must be integers, one for each head"
            one = replace(self, kind="int")
            return next((problem for each in value if (problem := one.problem(each))), None)
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
class Flag:
    """A yes or no that kernels get in place of attributes: each of these has one of some values."""

    name: str
    when: tuple[tuple[str, tuple[Value, ...]], ...]

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether it is a yes under these attributes."""
        return all(values[name] in allowed for name, allowed in self.when)


@dataclass(frozen=True, slots=True)
class KernelField:
    """What a kernel is given of the attributes: one plain number, a member of its arguments.

    ``source`` is the attribute, which may be a choice and then is its index; or a flag.
    """

    name: str
    type: Literal["int64", "per_head", "float32", "bool", "choice"]
    source: Attribute | Flag


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of the domain ``ai.allmem``.

    ``sizes`` are those among the names in shapes that kernels are given; the rest follow from them.
    ``flags`` stand in for the attributes they look at, which kernels do not see.
    """

    name: str
    version: int
    doc: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attributes: tuple[Attribute, ...]
    sizes: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()

    @property
    def kernel_fields(self) -> tuple[KernelField, ...]:
        """What kernels are given of the attributes, in the order of the table, flags last."""
        behind_flags = {name for flag in self.flags for name, _ in flag.when}
        seen = [a for a in self.attributes if a.name not in behind_flags]
        return (
            *(KernelField(a.name, a.field_type, a) for a in seen),
            *(KernelField(flag.name, "bool", flag) for flag in self.flags),
        )

    def decided(self, **attributes: Value) -> dict[str, bool]:
        """The flags that look at no other attributes than these, by name."""
        return {
            flag.name: flag.holds(attributes)
            for flag in self.flags
            if all(name in attributes for name, _ in flag.when)
        }

    @property
    def state(self) -> tuple[Tensor, ...]:
        """The inputs ``past_*`` for which there is an output ``present_*``, of the same shape."""
        present = {t.name.replace("present_", "past_", 1) for t in self.outputs}
        return tuple(t for t in self.inputs if t.name in present)

    def attribute_values(self, given: Mapping[str, Value]) -> dict[str, Any]:
        """Fill in defaults and check every value; each then is of its attribute's kind.

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
