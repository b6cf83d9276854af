"""A session: a state that reads and answers. One call at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence

from allmem_runtime.arguments import as_list, check_text
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.loaded_model import LoadedModel
from allmem_runtime.session.answer import Answer
from allmem_runtime.session.finding import COUNT, DEFAULT_PASSAGES, Finding
from allmem_runtime.session.generating import check_sampling
from allmem_runtime.session.kept_text import Passage
from allmem_runtime.session.prompts import Exchange
from allmem_runtime.session.question_progress import QuestionProgress, Tell
from allmem_runtime.session.reading import check_system


class Session(Finding):
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
        written from the one that makes the question likeliest. Those about something else are left
        out; a question in another language than the text's is looked up by a translation. Where
        none fits, a fork answers.

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
        fork = self.fork()
        alone = fork._by_state(question, sampling, system, progress)
        if isinstance(passages, Iterable):
            most, found = 0, as_list("passages", passages, Passage, COUNT)
        else:
            most, found = passages, self.find_passages(question, passages)
        rereading = self._rereading(question, found, most, sampling, system, progress, fork, alone)
        return Answer(rereading or alone)

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
            rereading = self._rereading(
                question, self.passages, passages, sampling, system, progress, self
            )
            if rereading is not None:
                answer = Answer(rereading)
                if (yield from self._stream_from(answer, question, system, progress)):
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

    def _stream_from(
        self, answer: Answer, question: str, system: str | None, tell: Tell | None
    ) -> Generator[str, None, bool]:
        """Yield an answer from passages, and read question and answer, without passages.

        Returns:
            Whether there is an answer; False where no passage fits.
        """
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
            if not self.passages and not parts and not self.finish_reason:
                return False
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
        return True

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
