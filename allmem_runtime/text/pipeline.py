"""What a tokenizer does besides its vocabulary, as data: the steps before and after the model."""

from __future__ import annotations

import json
from typing import Any

import tokenizers

Step = dict[str, Any]
"""A step as ``tokenizer.json`` has it: its ``type`` and its settings."""

_SHORT = ("a", "A", "0", ".")


def steps_of(tokenizer: tokenizers.Tokenizer, part: str) -> list[Step]:
    """The steps of a part, such as ``decoder``; sequences within sequences are laid out flat."""
    value = getattr(tokenizer, part)
    if value is None:
        return []
    shell = tokenizers.Tokenizer(tokenizers.models.BPE())  # without the vocabulary: in no time
    setattr(shell, part, value)
    return _flat(json.loads(shell.to_str())[part])


def beginning(tokenizer: tokenizers.Tokenizer) -> list[int]:
    """What a tokenizer puts before every text; what it puts behind one is left out."""
    for text in _SHORT:
        found = tokenizer.encode(text, add_special_tokens=True)
        if 0 in found.special_tokens_mask:
            return found.ids[: found.special_tokens_mask.index(0)]
    return tokenizer.encode("", add_special_tokens=True).ids  # no text has tokens of its own


def with_steps(tokenizer: tokenizers.Tokenizer, part: str, steps: list[Step]) -> None:
    """Have ``tokenizer`` use other steps for a part; there is at least one."""
    shell = json.loads(tokenizers.Tokenizer(tokenizers.models.BPE()).to_str())
    shell[part] = {"type": "Sequence", _INSIDE[part]: steps}
    setattr(tokenizer, part, getattr(tokenizers.Tokenizer.from_str(json.dumps(shell)), part))


_INSIDE = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}


def _flat(step: Step) -> list[Step]:
    if step["type"] != "Sequence":
        return [step]
    inside = next(step[name] for name in _INSIDE.values() if name in step)
    return [deeper for entry in inside for deeper in _flat(entry)]
