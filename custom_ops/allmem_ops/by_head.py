"""Windows by key/value head: the contract of version 2 from that of version 1."""

from __future__ import annotations

from dataclasses import replace

from allmem_ops.contract import Operator, Tensor

_RING = ("batch", "kv_heads", "slots", "head_dim")
_SCALE = ("batch", "kv_heads", 2, "slots")


def by_head(operator: Operator) -> Operator:
    """The operator whose heads have windows of their own; their rings lie one after the other."""
    rings: dict[tuple[str | int, ...], tuple[str | int, ...]] = {
        _RING: ("batch", "rows", "head_dim"),
        _SCALE: ("batch", "2 * rows"),
    }
    docs = {
        "past_key": "rotated keys, head after head, a head's token in the slot of its own ring",
        "past_value": "values in the same rows",
        "past_scale": "head after head: of each of its int8 keys, then of each of its int8 values",
    }

    def tensors(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(
            replace(t, shape=rings.get(t.shape, t.shape), doc=docs.get(t.name, t.doc))
            for t in given
        )

    window, *rest = operator.attributes
    doc = "tokens visible, the token itself included, for each key/value head"
    return replace(
        operator,
        version=2,
        inputs=tensors(operator.inputs),
        outputs=tensors(operator.outputs),
        attributes=(replace(window, kind="ints", doc=doc), *rest),
    )
