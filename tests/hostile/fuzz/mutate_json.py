"""Spoils JSON: types, ranges, huge numbers, repeated keys, deep nesting, lone surrogates."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from hostile.fuzz.mutate_bytes import mutated_bytes


@dataclass(frozen=True, slots=True)
class Raw:
    """JSON text that goes into the result as it is, be it valid or not."""

    text: str


class Pairs(list[tuple[str, Any]]):
    """An object whose keys may repeat."""


_LITERALS = (
    "0", "-0", "-0.0", "1", "-1", "2", "3", "7", "1.5", "0.1", "-1e-320", "1e308", "1e309",
    "-1e999",
    "NaN", "Infinity", "-Infinity", "1" + "0" * 30, "1" + "0" * 400, "9" * 5000, "2147483647",
    "4294967296", "1099511627776", "9223372036854775807", "9223372036854775808", "true", "false",
    "null", '""', '"0"', '"true"', '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\\u202e"',
    '"' + "x" * 5000 + '"', '"../../etc/passwd"', '"/dev/zero"', '"{"', "[]", "[[]]", "[null]",
    "[1,2,3]", "{}", '{"":{}}', '{"a":1,"a":2}', "[" * 200 + "]" * 200, "[" * 100_000,
    '{"a":' * 2000 + "1" + "}" * 2000, "[" + "0," * 20_000 + "0]", "'", "01", "+1", ".5", "\\u0031",
)  # fmt: skip


def mutated_json(text: str, draw: Random) -> str:
    """A JSON text with one to three changes; one in ten is spoiled as bytes."""
    if draw.random() < 0.1:
        return mutated_bytes(text.encode(), draw).decode("utf-8", "surrogateescape")
    tree = [json.loads(text, object_pairs_hook=Pairs)]  # a list, so that the root has a place too
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            break  # all is gone
        holder, at = places[draw.randrange(len(places))]
        _change(holder, at, tree, draw)
    return dumped(tree[0]) if tree else ""


def mutated_json_bytes(data: bytes, draw: Random) -> bytes:
    """The same for the bytes of a file."""
    return mutated_json(data.decode(), draw).encode("utf-8", "surrogateescape")


def dumped(value: Any) -> str:
    """JSON text of a tree of ``Pairs``, lists, values and ``Raw``."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{dumped(own)}" for key, own in value) + "}"
    if isinstance(value, dict):
        return dumped(Pairs(value.items()))
    if isinstance(value, list):
        return "[" + ",".join(map(dumped, value)) + "]"
    return json.dumps(value)


def _places(tree: list[Any]) -> Any:
    """Every value, as the list it stands in and where."""
    for at, value in enumerate(tree):
        yield tree, at
        inner = value[1] if isinstance(tree, Pairs) else value
        if isinstance(inner, list):
            # Of a long list some values stand for all.
            if len(inner) > 60 and not isinstance(inner, Pairs):
                yield inner, 0
                yield inner, len(inner) - 1
                continue
            yield from _places(inner)


def _value(holder: list[Any], at: int) -> Any:
    return holder[at][1] if isinstance(holder, Pairs) else holder[at]


def _put(holder: list[Any], at: int, value: Any) -> None:
    holder[at] = (holder[at][0], value) if isinstance(holder, Pairs) else value


def _change(holder: list[Any], at: int, tree: list[Any], draw: Random) -> None:
    kind, value = draw.random(), _value(holder, at)
    if kind < 0.35:
        _put(holder, at, Raw(draw.choice(_LITERALS)))
    elif kind < 0.65:
        _put(holder, at, _near(value, draw))
    elif kind < 0.75:
        places = list(_places(tree))
        _put(holder, at, _value(*places[draw.randrange(len(places))]))
        if any(_is_inside(holder, one) for one in [_value(holder, at)]):
            _put(holder, at, None)  # a tree that holds itself has no text
    elif kind < 0.85:
        del holder[at]
    elif isinstance(holder, Pairs):
        key = holder[at][0]
        name = draw.choice((key, key.upper(), key + "_", "", "__proto__", "\ud800", "k" * 3000))
        holder.insert(draw.randrange(len(holder) + 1), (name, _near(value, draw)))
    else:
        holder.insert(at, value)


def _is_inside(wanted: list[Any], tree: Any) -> bool:
    if tree is wanted:
        return True
    if not isinstance(tree, list):
        return False
    return any(_is_inside(wanted, part[1] if isinstance(part, tuple) else part) for part in tree)


def _near(value: Any, draw: Random) -> Any:
    """A value that is like another one, and wrong in a small way."""
    if isinstance(value, bool) or value is None:
        return draw.choice((not value, str(value), int(bool(value))))
    if isinstance(value, int | float):
        return draw.choice(
            (value + 1, value - 1, -value, value * 2, value * 1000, value / 3, float(value),
             str(value), [value], {"": value}, 1 << draw.randrange(70), -(1 << draw.randrange(70)))
        )  # fmt: skip
    if isinstance(value, str):
        return draw.choice(
            ("", value + "x", value[:-1], value * 2, value.upper(), f"../{value}", f"{value}\0",
             value + "\ud800", [value], {value: value}, value.encode().hex(), value * 500)
        )  # fmt: skip
    if isinstance(value, Pairs):
        return draw.choice(
            (Pairs(value[1:]), Pairs(value[:-1]), Pairs(value + value), [own for _, own in value])
        )
    if isinstance(value, list):
        return draw.choice((value[1:], value[:-1], value + value, value * 50, [value], [], None))
    return None
