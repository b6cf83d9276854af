"""What the kernels are given in place of an operator's attributes: plain numbers, by name."""

from __future__ import annotations

from collections.abc import Mapping

from allmem_ops.contract import Attribute, Operator, Value

KernelValue = int | float | tuple[int, ...]
"""A tuple has one number for each key/value head."""


def kernel_fields(operator: Operator, attributes: Mapping[str, Value]) -> dict[str, KernelValue]:
    """The operator's attributes as its kernels take them.

    Args:
        operator: of the operator table.
        attributes: as on a node; defaults are filled in.

    Returns:
        By the names of ``operator.kernel_fields``: integers and numbers as they are, flags as 0 or
        1, a choice as its index among the choices.

    Raises:
        ValueError: an attribute is unknown, missing or outside its range.
    """
    values = operator.attribute_values(attributes)
    return {
        field.name: _field(field.source, values[field.source.name])
        if isinstance(field.source, Attribute)
        else int(field.source.holds(values))
        for field in operator.kernel_fields
    }


def _field(attribute: Attribute, value: Value) -> KernelValue:
    if isinstance(value, str):
        return attribute.choices.index(value)
    if isinstance(value, tuple):
        return value
    if attribute.per_head:
        return (int(value),)  # one for all
    return float(value) if attribute.kind == "float" else int(value)
