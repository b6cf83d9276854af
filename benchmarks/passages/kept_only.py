"""A text that is kept for passages and not read by a model."""

from __future__ import annotations

from allmem_runtime import Model
from allmem_runtime.session.finding import PASSAGES_SHARE
from allmem_runtime.session.kept_text import Passage, Segment
from allmem_runtime.session.wanted import passages_wanted
from allmem_runtime.text.segments import Segmenter
from benchmarks.passages.reading_once import timed


class KeptOnly:
    """Keeps a text as a session does that reads it.

    Args:
        model: whose tokens are counted.
        text: all of it.

    Attributes:
        tokens: of the text.
        seconds: that the last search took.
    """

    def __init__(self, model: Model, text: str) -> None:
        session = model.session(undo=False, text=True)
        self._keeper = timed(session)
        self._room = int(model.manifest.window * PASSAGES_SHARE)
        self._encode = model.tokenizer.encode_text
        self._at, self.tokens, self.seconds = "", 0, 0.0
        segmenter, first = Segmenter(), 0
        for segment in (*segmenter.push(text), *segmenter.flush()):
            count = self._count(segment.text)
            taken = Segment("document.txt", segment.text, first, segment.end, self.tokens, count)
            self._at = self._keeper.take(self._at, taken)
            first, self.tokens = segment.end, self.tokens + count

    def find(self, question: str, most: int) -> list[Passage]:
        """What ``Session.find_passages`` finds after the text was read."""
        most = passages_wanted(question, most)
        found = self._keeper.find(self._at, question, (), most, self._room, self._count)
        self.seconds = self._keeper.seconds
        return found

    def _count(self, text: str) -> int:
        return len(self._encode(text))
