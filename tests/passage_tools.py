"""What the tests of passages read with: a stand-in for a session that takes segments."""

from __future__ import annotations

from allmem_runtime.passages.keeping import Text
from allmem_runtime.session.kept_text import Segment
from allmem_runtime.text.segments import Segmenter


class Reader:
    """Stands for a session: takes segments one after the other and knows its digest."""

    def __init__(self, text: Text, at: str = "") -> None:
        self.text = text
        self.at = at
        self.token = 0

    def read(
        self, source: str, name: str = "story.txt", start: int = 0, stop: int = 1 << 60
    ) -> int:
        """Read from a byte on; returns the bytes read up to the last segment before ``stop``."""
        segmenter = Segmenter()
        offset = start
        rest = source.encode()[start:].decode()
        for segment in [*segmenter.push(rest), *segmenter.flush()]:
            end = start + segment.end
            if end > stop:
                break
            count = max(1, len(segment.text) // 4)
            piece = Segment(name, segment.text, offset, end, self.token, count)
            self.at = self.text.take(self.at, piece)
            self.token += count
            offset = end
        return offset
