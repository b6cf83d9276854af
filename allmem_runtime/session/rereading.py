"""Answers a question from passages that are read again, or from the state alone.

A small model mixes several passages up, and what it read before them distracts it too. So each is
read by itself, on a session that has read nothing else, with the question behind it. The answer
goes on from the one that makes the question likeliest, which takes no reading beyond that. This is
the question likelihood of Sachan et al., "Improving Passage Retrieval with Zero-Shot Question
Generation" (https://arxiv.org/abs/2204.07496).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence

from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.session.answered_from import answered_from
from allmem_runtime.session.generating import Generating
from allmem_runtime.session.kept_text import Passage
from allmem_runtime.session.prompts import Prompt, shared
from allmem_runtime.session.question_progress import QuestionProgress, Tell
from allmem_runtime.session.writing import FinishReason

FOUND = 1.5
"""What the search's score of a passage counts, as a share of the best one's, beside the mean
natural logarithm of the probabilities of the question's tokens."""


class Rereading:
    """Reads passages again and answers behind the one that makes the question likeliest.

    Args:
        answering: a session to read and answer on: one that has read nothing where there are
            passages, else a fork.
        found: passages, the best first.
        question: of the user.
        prompts: makes what is to be read of them, at least one prompt.
        sampling: how to draw; the model's own way by default.
        read: tokens that were read before, and not by the session that answers.
        tell: is told how far the reading is.

    Attributes:
        passages: those that were found; once one is chosen, those that were read, it first.
    """

    def __init__(
        self,
        answering: Generating,
        found: Sequence[Passage],
        question: str,
        prompts: Callable[[], Sequence[Prompt]],
        sampling: Sampling | None,
        read: int = 0,
        tell: Tell | None = None,
    ) -> None:
        self.passages = tuple(found)
        self._reader, self._read, self._tell = answering, read, tell
        self._question, self._prompts, self._sampling = question, prompts, sampling
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End it at its next piece or token; any thread may call this."""
        self._cancelled.set()
        self._reader.cancel()

    @property
    def position(self) -> int:
        """Tokens that were read before, and those that the session that answers has."""
        return self._read + self._reader.position

    def pieces(self) -> Generator[str, None, FinishReason]:
        """Write the answer, a piece of text at a time; returns why it ended.

        Raises:
            UsageError: the system text comes too late, or the question is too long.
            SessionStateError: a step failed, or the logits are not finite.
        """
        choice = self._prompts()
        self.passages = tuple(passage for prompt in choice for passage in prompt.passages)
        best = self._choose(choice)
        if self._cancelled.is_set():
            return "cancelled"
        self._put_first(best.passages)
        written = []
        for text in self._reader.reply(sampling=self._sampling):
            written.append(text)
            yield text
            if self._cancelled.is_set():
                self._reader.cancel()  # it may have come just before the writing began
        self._put_first(answered_from(best.passages, self._question, "".join(written)))
        return self._reader.finish_reason

    def _choose(self, choice: Sequence[Prompt]) -> Prompt:
        """Read each prompt up to its last token; the reader stands in the best of them then."""
        opening, best, most = self._reader, choice[0], float("-inf")
        begun = min(shared(choice[0].tokens, prompt.tokens[:-1]) for prompt in choice)
        progress = None
        if self._tell is not None:
            total = begun + sum(len(prompt.tokens) - 1 - begun for prompt in choice)
            progress = QuestionProgress(self._tell, self._question, total, self.position)
        opening.follow(progress)
        if not self._cancelled.is_set():
            opening.feed(best.tokens[:begun])
        chosen = opening
        for prompt in choice:
            if self._cancelled.is_set():
                break
            self._reader = opening.fork() if len(choice) > 1 else opening
            self._reader.follow(progress)
            asked = range(prompt.asked.start - begun, prompt.asked.stop - begun)
            likely = self._reader.likelihood(prompt.tokens[begun:], asked) / max(1, len(asked))
            fits = likely + FOUND * prompt.score / max(choice[0].score, 1e-9)
            if fits > most or chosen is opening:
                chosen, best, most = self._reader, prompt, fits
        self._reader = chosen
        return best

    def _put_first(self, passages: Sequence[Passage]) -> None:
        others = [passage for passage in self.passages if passage not in passages]
        self.passages = (*passages, *others)
