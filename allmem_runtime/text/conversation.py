"""What a chat template from a stranger writes around the turns of a longer conversation.

``trial`` finds out all that a session needs. Training data has conversations of any shape, so each
shape is rendered when it is first met, in the same kind of process, under the same limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allmem_runtime.text.trial_process import run


@dataclass(frozen=True, slots=True)
class Conversation:
    """The shape of a conversation.

    Attributes:
        template: a chat template.
        control: control tokens by the names templates use, such as ``bos_token``.
        roles: system, user or assistant, of each turn.
        origin: folder that the template lies in, for messages.
    """

    template: str
    control: Mapping[str, str]
    roles: Sequence[str]
    origin: Path

    def as_data(self) -> dict[str, Any]:
        """All but the origin, as JSON knows it."""
        return {
            "template": self.template,
            "control": dict(self.control),
            "roles": list(self.roles),
        }


def written_around(conversation: Conversation) -> list[str]:
    """The template's own texts: before each turn's content, and after the last.

    Raises:
        ModelFileError: the template refuses the conversation, leaves a content out or repeats it,
            or takes too much time or memory.
    """
    return [str(piece) for piece in run(conversation)["pieces"]]
