"""Chat templates and tokenizers that take too much, or crash the library that reads them."""

from __future__ import annotations

from typing import Any


def _doubled(form: str, name: str = "n") -> str:
    """A template that doubles a nest of lists or tuples, in which all parts are shared."""
    left, right = ("[", "]") if form == "list" else ("(", ")")
    return (
        f"{{% set {name} = namespace(x={left}'x',{right}) %}}{{% for i in range(40) %}}"
        f"{{% set {name}.x = {left}{name}.x, {name}.x{right} %}}{{% endfor %}}"
    )


TEMPLATES = {
    "a comparison without end": _doubled("list", "n") + _doubled("list", "o") + "{{ n.x == o.x }}",
    "a hash without end": _doubled("tuple") + "{{ {n.x: 1} | length }}",
    "lists without end": "{% set n = namespace(x=[]) %}{% for i in range(100000) %}"
    "{% set n.x = [n.x, [0] * 1000000] %}{% endfor %}",
    "texts without end": "{% filter upper %}{% for i in range(9000) %}{{ 'b' * 1000000 }}"
    "{% endfor %}{% endfilter %}",
    "a number without end": "{{ 2 | round(-(10 ** 9)) }}",
    "a name that is none": "{% set x = 1e999 %}{{ x }}",
}  # fmt: skip


def _replacing(times: int) -> dict[str, Any]:
    step = {"type": "Replace", "pattern": {"String": "b"}, "content": "b" * 12}
    return {"type": "Sequence", "normalizers": [step] * times, "decoders": [step] * times}


TOKENIZERS: dict[str, dict[str, Any]] = {
    "a normalizer that repeats": {"normalizer": _replacing(5)},
    "a decoder that repeats": {"decoder": _replacing(14)},
    "a replacement of nothing": {
        "normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "y"}
    },
    "an expression that tries all ways": {
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(b+)+$"}, "behavior": "Isolated",
                          "invert": False}
    },
    "pieces of no length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "a damaged map of characters": {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////wAAAAAA"}
    },
}  # fmt: skip
