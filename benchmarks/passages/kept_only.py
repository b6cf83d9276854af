"""A text that is kept for passages and not read by a model."""

from __future__ import annotations

from allmem_runtime import Model, Sampling
from allmem_runtime.session.answer import Answer
from allmem_runtime.session.kept_text import Passage, Segment
from allmem_runtime.text.segments import Segmenter
from benchmarks.passages.reading_once import timed


class KeptOnly:
    """Keeps a text as a session does that reads it.

    Args:
        model: whose tokens are counted.
        text: all of it.

    Attributes:
        session: that has the text beside it and has read nothing of it.
        keeper: of the text.
        tokens: of the text.
    """

    def __init__(self, model: Model, text: str) -> None:
        self.session = model.session(undo=False, text=True)
        self.keeper = timed(self.session)
        self.tokens = 0
        at, first, segmenter = "", 0, Segmenter()
        for segment in (*segmenter.push(text), *segmenter.flush()):
            count = len(model.tokenizer.encode_text(segment.text))
            taken = Segment("document.txt", segment.text, first, segment.end, self.tokens, count)
            at = self.keeper.take(at, taken)
            first, self.tokens = segment.end, self.tokens + count
        self.session._cursor.place.text = at

    def find(self, question: str, most: int) -> list[Passage]:
        """What ``Session.find_passages`` finds after the text was read."""
        return self.session.find_passages(question, most)

    def answer(self, question: str, most: int, sampling: Sampling) -> Answer:
        """What ``Session.answer`` answers, but where no passage fits: nothing was read there."""
        return self.session.answer(question, passages=most, sampling=sampling)
