"""The writing of a session: behind a question, or going on with a text as it stands."""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType

from allmem_runtime.arguments import check_kind, check_text
from allmem_runtime.errors import UsageError
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.loaded_model import LoadedModel
from allmem_runtime.session.reading import Reading
from allmem_runtime.session.writing import FinishReason, write


class Generating(Reading):
    """A state that reads and writes, and knows nothing of passages.

    Attributes:
        finish_reason: why the last answer ended: ``end`` (the model's own end token), ``stop``
            (a stop string), ``length``, ``cancelled``; empty if there was none, or it was left.
    """

    def __init__(self, model: LoadedModel, *, undo: bool = True) -> None:
        super().__init__(model, undo=undo)
        self.finish_reason: FinishReason = ""

    def reply(self, *, sampling: Sampling | None = None) -> Iterator[str]:
        """Write an answer behind what was fed, which ends with the turn of a question.

        Args:
            sampling: how to draw; the model's own way by default.

        Raises:
            SessionStateError: the session is busy, failed, or its logits are not finite.
        """
        check_sampling(sampling)
        with self._operation("a question is being answered"):
            yield from self._write(sampling, self.model.chat.stop)

    def generate(self, text: str = "", *, sampling: Sampling | None = None) -> Iterator[str]:
        """Continue a text as it stands, outside any conversation.

        Args:
            text: fed first; may be empty if something was fed before.
            sampling: how to draw; the model's own way by default.

        Raises:
            UsageError: there is nothing to continue.
            SessionStateError: the session is busy, failed, or its logits are not finite.
        """
        check_text("text", text)
        check_sampling(sampling)
        with self._operation("text is being written"):
            place = self._cursor.place
            after = self._turns.behind(place.turn, [*place.recent, *place.pending])
            tokens = self.model.tokenizer.encode_text(place.lead + text, after)
            tokens = [*self._turns.raw(place.turn), *tokens]
            if not tokens and not place.pending:
                raise UsageError("There is no text to continue.", "Give at least one word.")
            self._remember()
            self._take(tokens, "raw" if place.turn == "start" else place.turn)
            yield from self._write(sampling, ())

    def _write(self, sampling: Sampling | None, stop: tuple[str, ...]) -> Iterator[str]:
        self.finish_reason = ""
        drawing = sampling or self.model.sampling
        self.finish_reason = yield from write(self._cursor, self.model.tokenizer, drawing, stop)


def check_sampling(sampling: Sampling | None) -> None:
    """Refuse what does not say how to draw.

    Raises:
        UsageError: it is no ``Sampling``.
    """
    check_kind("sampling", sampling, (Sampling, NoneType), "Give a Sampling, or None.")
