"""The mark that stands between pieces of a source where nothing came for a while."""

from __future__ import annotations


class Pause:
    """Its only instance is ``PAUSE``."""

    def __repr__(self) -> str:
        return "PAUSE"


PAUSE = Pause()
