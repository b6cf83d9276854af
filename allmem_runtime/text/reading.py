"""From blocks of a source to tokens: text, segments, and the count of the source's bytes.

It knows nothing of models or states. Memory is bounded by one block and one segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from allmem_runtime.errors import UsageError
from allmem_runtime.source_mark import SourceMark
from allmem_runtime.text.blocks import Block
from allmem_runtime.text.parts import After
from allmem_runtime.text.segments import Segment, Segmenter, Utf8Reader
from allmem_runtime.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a reading is.

    Args:
        tokens: tokens fed by this call.
        position: tokens fed since the session began.
        tokens_per_second: of this call so far.
        source_bytes: bytes of the source whose tokens were fed, those of earlier calls included;
            within a segment, in proportion.
        replaced: U+FFFD that stand for invalid bytes, in this call.
        paused: the source says that nothing came for a while; the reading goes on when the next
            item is asked for. What waits for the end of its segment is the session's ``unread``.
    """

    tokens: int
    position: int
    tokens_per_second: float
    source_bytes: int
    replaced: int
    paused: bool = False


class Reading:
    """Encodes one source, or the rest of one, segment by segment.

    Args:
        tokenizer: encodes each segment as what it is in the whole.
        mark: how far the source was read before; kept up to date.
        taken: told each segment, the bytes of the source before it, its tokens, and those handed
            out with them that go before, right before the tokens are handed out.
        lead: asked once, before the first tokens: text to encode together with them, and what
            stands before that.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        mark: SourceMark,
        taken: Callable[[Segment, int, int, int], None] = lambda *told: None,
        lead: Callable[[], tuple[str, After]] = lambda: ("", "start"),
    ) -> None:
        self._tokenizer = tokenizer
        self._told = taken
        self._lead = lead
        self._begun = False
        self._mark = mark
        self._reader = Utf8Reader(mark.offset)
        self._segmenter = Segmenter(self._reader, tokenizer.joins)
        self._held = bytearray()  # bytes from mark.offset on
        self._kind: type[Block] | None = None  # a source gives text or ids, not both
        if not mark.offset:
            mark.begin()

    @property
    def replaced(self) -> int:
        """U+FFFD that stand for invalid bytes so far."""
        return self._reader.replaced

    def push(self, block: Block) -> Iterator[list[int]]:
        """Tokens, segment by segment; the mark stands behind a segment once it was handed out.

        Raises:
            UsageError: the source mixes text and token ids.
        """
        if self._kind not in (None, type(block)):
            raise UsageError(
                "The source mixes text and token ids.", "Give one kind, or use two calls."
            )
        self._kind = type(block)
        if isinstance(block, list):
            yield [*self._tokenizer.encode_text(*self._before()), *block]
            return
        self._held += block
        yield from self._taken(self._segmenter.push(self._reader.push(block)))

    def finish(self) -> Iterator[list[int]]:
        """Tokens of what the end of the source makes certain."""
        yield from self._taken(self._segmenter.push(self._reader.finish()))
        yield from self._taken(self._segmenter.flush())

    def unread(self) -> bytes:
        """Bytes that were given to this reading and belong to no segment yet."""
        return bytes(self._held)

    def _taken(self, segments: Iterable[Segment]) -> Iterator[list[int]]:
        for segment in segments:
            lead, after = self._before()
            tokens = self._tokenizer.encode_text(lead + segment.text, after)
            own = self._tokenizer.encode_text(segment.text, "text") if lead else tokens
            before = max(0, len(tokens) - len(own))
            first = self._mark.offset
            count = segment.end - first
            self._mark.advance(bytes(self._held[:count]))
            del self._held[:count]
            self._told(segment, first, len(tokens) - before, before)
            yield tokens

    def _before(self) -> tuple[str, After]:
        """Text to encode together with the next, and what stands before that."""
        if self._begun:
            return "", "text"
        self._begun = True
        return self._lead()
