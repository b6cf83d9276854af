"""How much of what a session has read its state still holds, and how much passages bring back.

Each probe is a beginning of a sentence that stands in the text once; a fork goes on writing from
it. What it writes first is right if it is the rare word that follows in the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from allmem_runtime.errors import UsageError
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.passages.keeping import Text
from allmem_runtime.passages.probes import Probe, probes
from allmem_runtime.session.session import Session
from allmem_runtime.text.chat import SEPARATOR

DEFAULT_PROBES = 20
"""Most for each range of distances."""

_SPARE_TOKENS = 2
"""Written beyond the answer's own: its first token may begin with a space."""


@dataclass(frozen=True, slots=True)
class Recall:
    """What was recalled from one range of distances.

    Args:
        least: tokens back, the nearest.
        most: tokens back, the farthest; None for the beginning of the text.
        probes: how many were asked.
        state: right from the state alone.
        passages: right with passages read again.
    """

    least: int
    most: int | None
    probes: int
    state: int
    passages: int


def measure(session: Session, each: int, most: int) -> Iterator[Recall]:
    """Ask probes of all depths, the nearest range first; the session stays as it is.

    Args:
        session: whose text is kept.
        each: probes of a range of distances.
        most: passages that are read again for a probe.

    Raises:
        UsageError: the session's text is not kept.
        PassagesError: the text cannot be used.
    """
    text = session.text
    if not isinstance(text, Text) or not session.text_digest:
        raise UsageError(
            "The text of this session is not kept, so there is nothing to ask for.",
            session.text_failure or "Read the document into a session without --no-text.",
        )
    edges = _edges(session.model.manifest.window, session.position)
    rows = list(text.rows(session.text_digest))
    for number, found in enumerate(probes(rows, session.position, edges, each)):
        yield Recall(
            least=edges[number - 1] if number else 0,
            most=edges[number] if number < len(edges) else None,
            probes=len(found),
            state=sum(_is_right(session, probe, 0) for probe in found),
            passages=sum(_is_right(session, probe, most) for probe in found),
        )


def _edges(window: int, position: int) -> list[int]:
    """Nine tenths of the window, the window and a piece, then four times as far each."""
    edges = [window * 9 // 10]
    while edges[-1] * 4 < position:
        edges.append(edges[-1] * 4 if len(edges) > 1 else window * 2)
    return edges


def _is_right(session: Session, probe: Probe, most: int) -> bool:
    tokens = len(session.model.tokenizer.encode_text(probe.answer)) + _SPARE_TOKENS
    sampling = Sampling(temperature=0, max_tokens=tokens)
    found = session.find_passages(probe.before, most)
    reader = session.fork() if not found else Session(session.model, undo=False)
    reader.keep_text(None)
    for passage in reversed(found):  # as an answer: by a session that has read nothing else
        for _ in reader.ingest(passage.text, new_source=True):
            pass
    written = "".join(reader.generate(SEPARATOR + probe.before.strip(), sampling=sampling))
    return written.strip().startswith(probe.answer)
