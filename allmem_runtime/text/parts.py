"""The parts of a prompt, and what stands before a text that is encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

After = Literal["start", "control", "text"]
"""What stands before a text: nothing, a control token, or more text."""


@dataclass(frozen=True, slots=True)
class Part:
    """Text to encode: the template's own (``control``), or what a person wrote."""

    text: str
    control: bool
