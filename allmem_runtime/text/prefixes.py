"""What a tokenizer does at the start of a text only, and its steps without that.

The start of a text may get a space, or lose one. A text that goes on from another, or from a
control token, is to be encoded as it would be in the whole.
"""

from __future__ import annotations

from allmem_runtime.text.parts import After
from allmem_runtime.text.pipeline import Step


def steps_behind(after: After, part: str, steps: list[Step]) -> list[Step]:
    """The steps of a tokenizer's part, for a text that does not stand at the start.

    Args:
        after: what stands before the text.
        part: ``normalizer`` or ``pre_tokenizer``.
        steps: at the start of a text.
    """
    change = _normalizer if part == "normalizer" else _pre_tokenizer
    return change(steps, after)


def _normalizer(steps: list[Step], after: After) -> list[Step]:
    if after != "text":  # what stands between control tokens is normalized on its own
        return steps
    return [
        {**step, "strip_left": False} if step["type"] == "Strip" else step
        for step in steps
        if step["type"] != "Prepend"
    ]


def _pre_tokenizer(steps: list[Step], after: After) -> list[Step]:
    changed = []
    for place, step in enumerate(steps):
        # A step behind another sees words, and what it does to each is none of the start's.
        starts = after == "text" and place == 0
        if step["type"] == "ByteLevel" and starts:
            changed.append({**step, "add_prefix_space": False})
        elif step["type"] == "Metaspace" and (starts or step["prepend_scheme"] == "first"):
            changed.append({**step, "prepend_scheme": "never"})
        else:
            changed.append(step)
    return changed
