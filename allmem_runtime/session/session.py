"""A session: a state that reads and answers. One call at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from allmem_runtime.arguments import as_count, as_list, check_text
from allmem_runtime.errors import AllMemError
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.loaded_model import LoadedModel
from allmem_runtime.session.answer import Answer
from allmem_runtime.session.generating import Generating, check_sampling
from allmem_runtime.session.kept_text import Passage
from allmem_runtime.session.prompts import Exchange, Prompt, prompts
from allmem_runtime.session.question_progress import QuestionProgress, Tell
from allmem_runtime.session.reading import check_system
from allmem_runtime.session.rereading import Rereading
from allmem_runtime.session.wanted import passages_wanted

DEFAULT_PASSAGES = 3
"""Most passages that are read again before a question."""

PASSAGES_SHARE = 1 / 3
"""Part of the window that they may take together."""

_COUNT = "Give how many at most, 0 or more, or a list of passages."


class Session(Generating):
    """What one reader has in mind.

    Reading and answering are iterators: the work is done as they are consumed. While one is
    open, only ``save``, ``fork``, ``answer``, ``find_passages``, ``checkpoint``, ``info`` and
    ``cancel`` may be called, by any thread: what copies the state waits for the step that runs.
    Leaving a loop early is always allowed; tokens that wait to be fed then go first in the next
    call.

    Attributes:
        passages: what was read again for the last answer of ``ask`` or ``stream``, in the order of
            ``Answer.passages``.
    """

    def __init__(self, model: LoadedModel, *, undo: bool = True) -> None:
        super().__init__(model, undo=undo)
        self.passages: tuple[Passage, ...] = ()
        self._following: Answer | None = None

    def cancel(self) -> None:
        """End the running call at its next piece or token; any thread may call this."""
        super().cancel()
        if (answer := self._following) is not None:
            answer.cancel()

    def _forget(self) -> None:
        self.finish_reason = ""
        self.passages = ()

    # Answering ---------------------------------------------------------------------------

    def answer(
        self,
        question: str,
        *,
        passages: int | Sequence[Passage] = DEFAULT_PASSAGES,
        sampling: Sampling | None = None,
        system: str | None = None,
        progress: Tell | None = None,
    ) -> Answer:
        """Answer a question from passages that fit it, or from the state alone; nothing is changed.

        Passages are found where the text of what was read is kept; see ``keep_text``. Together
        they take a part of the window at most. Each is read again by itself, on a session that has
        read nothing but the instruction and the last exchanges of this one, and the answer is
        written from the one that makes the question likeliest. Where none fits, a fork answers.

        Args:
            question: text of the user; nothing in it acts as a control token.
            passages: most that are read again, or those that are, the best first, such as a choice
                of what ``find_passages`` found; 0 or none asks the state alone.
            sampling: how to draw; the model's own way by default.
            system: instruction that opens the conversation.
            progress: told after each piece how far the reading is that goes before the answer; the
                bytes are those of the question.

        Raises:
            UsageError: an argument is nothing of the kind.
            SessionStateError: the session is busy or failed. What ``stream`` raises is raised
                while the answer is iterated over.
        """
        _check_asked(question, sampling, system)
        if isinstance(passages, Iterable):
            found = as_list("passages", passages, Passage, _COUNT)
        else:
            found = self.find_passages(question, passages)
        return self._answer(question, found, sampling, system, progress)

    def _answer(
        self,
        question: str,
        found: Sequence[Passage],
        sampling: Sampling | None,
        system: str | None,
        tell: Tell | None,
    ) -> Answer:
        if not found:
            fork = self.fork()

            def alone() -> list[Prompt]:
                tokens = fork._question(question, system)
                fork._cursor.place.lead = ""  # it is among the tokens
                return [Prompt(tokens)]

            return Answer(Rereading(fork, (), question, alone, sampling, tell=tell))
        with self._guard.lock:
            self._cursor.check()
            place, earlier = self._cursor.place.copy(), self._earlier
        blank = type(self)(self.model, undo=False)
        blank.piece, blank._cursor.place.seed = self.piece, place.seed

        def reread() -> list[Prompt]:
            self._turns.question(place.turn, question, system)  # it may be too late for a system
            opening = place.system if system is None else system
            return prompts(self._turns, self._count, found, question, earlier, opening or None)

        position = place.position
        return Answer(Rereading(blank, found, question, reread, sampling, position, tell))

    def _question(self, question: str, system: str | None) -> list[int]:
        """A question and all around it, where this session stands."""
        place = self._cursor.place
        return self._turns.question(place.turn, question, system, place.lead)

    def _count(self, text: str) -> int:
        return len(self.model.tokenizer.encode_text(text))

    def find_passages(self, question: str, most: int = DEFAULT_PASSAGES) -> list[Passage]:
        """The passages that fit a question, the best first; none where no text is kept.

        Where the text cannot be used, ``text_failure`` says why, and the state answers alone.

        Args:
            question: of the user.
            most: how many at most, and twice as many where it asks for several things; together
                they take a part of the window.

        Raises:
            UsageError: an argument is nothing of the kind.
        """
        check_text("question", question)
        most = as_count("passages", most, _COUNT)
        if self._text is None or not most:
            return []
        most = passages_wanted(question, most)
        earlier = [str(exchange) for exchange in self._earlier]
        room = int(self.model.manifest.window * PASSAGES_SHARE)
        try:
            with self._guard.lock:
                at = self._cursor.place.text
                return self._text.find(at, question, earlier, most, room, self._count)
        except AllMemError as error:
            self.lose_text(error)
            return []

    def ask(
        self,
        question: str,
        *,
        passages: int = 0,
        sampling: Sampling | None = None,
        system: str | None = None,
        progress: Tell | None = None,
    ) -> str:
        """The whole answer to a question; see ``stream``."""
        return "".join(
            self.stream(
                question, passages=passages, sampling=sampling, system=system, progress=progress
            )
        )

    def stream(
        self,
        question: str,
        *,
        passages: int = 0,
        sampling: Sampling | None = None,
        system: str | None = None,
        progress: Tell | None = None,
    ) -> Iterator[str]:
        """Ask, and yield the answer as it is written.

        The question and its answer become part of what the session knows; passages do not.

        Args:
            question: text of the user; nothing in it acts as a control token.
            passages: most passages of the text that are read again to answer, as ``answer`` does;
                the session then reads the answer.
            sampling: how to draw; the model's own way by default.
            system: instruction that opens the conversation.
            progress: as for ``answer``; told of the session's own reading too.

        Raises:
            UsageError: the system text comes too late, the question is too long, or an argument is
                nothing of the kind.
            SessionStateError: the session is busy, failed, or its logits are not finite.
        """
        _check_asked(question, sampling, system)
        with self._operation("a question is being answered"):
            self.passages = tuple(self.find_passages(question, passages))
            if self.passages:
                yield from self._stream_with_passages(question, sampling, system, progress)
                return
            tokens = self._question(question, system)
            self._remember()
            self._take(tokens, "reply", system)
            parts: list[str] = []
            self._tell(progress, question)
            try:
                for text in self._write(sampling, self.model.chat.stop):
                    parts.append(text)
                    yield text
            finally:
                self.follow(None)
                self._note(question, parts)

    def _stream_with_passages(
        self, question: str, sampling: Sampling | None, system: str | None, tell: Tell | None
    ) -> Iterator[str]:
        """Yield the answer from passages, and read question and answer, without passages."""
        answer = self._answer(question, self.passages, sampling, system, tell)
        tokens = self._question(question, system)
        self.finish_reason = ""
        self._following = answer
        if self._cursor.stop.is_set():
            answer.cancel()  # it came while the passages were looked for
        parts: list[str] = []
        try:
            for text in answer:
                parts.append(text)
                yield text
            self.finish_reason, self.passages = answer.finish_reason, answer.passages
        finally:
            self._following = None
            if parts or answer.finish_reason:
                self._remember()
                said = self._turns.answer("".join(parts))
                self._take([*tokens, *said], "reply", system)
                self._note(question, parts)
        self._tell(tell, question)
        try:
            for _ in self._cursor.feed():
                pass
        finally:
            self.follow(None)

    def _tell(self, tell: Tell | None, question: str) -> None:
        """Have somebody told how far the reading is of all that waits."""
        if tell is not None:
            self.follow(QuestionProgress(tell, question, self.pending, self.position))

    def _note(self, question: str, parts: Sequence[str]) -> None:
        """Remember an exchange for the questions after it, which may lean on it."""
        self._earlier = (*self._earlier[-1:], Exchange(question, "".join(parts)))


def _check_asked(question: str, sampling: Sampling | None, system: str | None) -> None:
    check_text("question", question)
    check_system(system)
    check_sampling(sampling)
