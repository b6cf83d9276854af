"""Answers a question from passages that are read again, or from the state alone if none fits.

A small model mixes several passages up, and what it read before them distracts it too. So each is
read by itself, on a session that has read nothing else, with the question behind it. The answer
goes on from the one that makes the question likeliest, which takes no reading beyond that. This is
the question likelihood of Sachan et al., "Improving Passage Retrieval with Zero-Shot Question
Generation" (https://arxiv.org/abs/2204.07496). A passage that makes the question unlikelier than
it is by itself is about something else, unless it is much like the question: code makes any
question in plain words unlikelier.
"""

from __future__ import annotations

import math
import threading
import unicodedata
from collections.abc import Callable, Generator, Sequence

from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.session.answer import Answering
from allmem_runtime.session.answered_from import answered_from
from allmem_runtime.session.by_state import written
from allmem_runtime.session.generating import Generating
from allmem_runtime.session.kept_text import Passage
from allmem_runtime.session.prompts import Prompt, shared
from allmem_runtime.session.question_progress import QuestionProgress, Tell
from allmem_runtime.session.writing import FinishReason

FOUND = 1.5
"""What the search's score of a passage counts, as a share of the best one's, beside the mean
natural logarithm of the probabilities of the question's tokens."""

UNLIKELIER = 0.75
"""By how much the logarithm of a question's probability may be smaller behind a passage that fits
than by itself, times the root of the question's tokens, where likeness cannot be told."""

UNLIKE = 0.5
"""Likeness of a passage that must not make the question unlikelier at all."""

BY_LIKENESS = 5.0
"""How much more it may for each unit of likeness beyond that, and how much likelier it must make it
below; as above."""

OF_SIGNS = 0.15
"""Share of signs among the characters of a passage that is code, a table or the like."""

BEHIND_SIGNS = 1.5
"""By how much unlikelier a question in words is behind any such passage, times the root of its
tokens: so much is added before it is compared with others."""

HELD = 0.5
"""Share of the question's words with which a passage fits though it makes the question unlikelier:
of a short one, such as "Which pier?", little else can be known."""

Search = Callable[[Generating, threading.Event], tuple[str, Sequence[Passage]]]
"""Says a question in other words, by a session that has read nothing, until the event; and what is
found by them."""


class Rereading:
    """Reads passages again and answers behind the one that makes the question likeliest.

    Args:
        blank: makes a session that has read nothing.
        found: passages, the best first.
        question: of the user.
        prompts: makes what is to be read of passages with a question, and whether they are known to
            fit. Those that do not make it likelier than a prompt without passages, where there is
            one, count for nothing.
        sampling: how to draw; the model's own way by default.
        read: tokens that were read before, and not by the session that answers.
        tell: is told how far the reading is.
        search: looks for others where none fits; None where nothing else can be found.
        otherwise: answers where none fits at all; None leaves the answer to the caller.

    Attributes:
        passages: those that were found; once one is chosen, those that fit, it first; none where
            none fits.
    """

    def __init__(
        self,
        blank: Callable[[], Generating],
        found: Sequence[Passage],
        question: str,
        prompts: Callable[[Sequence[Passage], str, bool], Sequence[Prompt]],
        sampling: Sampling | None,
        read: int = 0,
        tell: Tell | None = None,
        *,
        search: Search | None = None,
        otherwise: Answering | None = None,
    ) -> None:
        self.passages = tuple(found)
        self._blank, self._reader, self._read, self._tell = blank, blank(), read, tell
        self._question, self._prompts, self._sampling = question, prompts, sampling
        self._search, self._otherwise, self._by_state = search, otherwise, False
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End it at its next piece or token; any thread may call this."""
        self._cancelled.set()
        self._reader.cancel()
        if (otherwise := self._otherwise) is not None:
            otherwise.cancel()

    @property
    def position(self) -> int:
        """Tokens that were read before, and those that the session that answers has."""
        if self._by_state and self._otherwise is not None:
            return self._otherwise.position
        return self._read + self._reader.position

    def pieces(self) -> Generator[str, None, FinishReason]:
        """Write the answer, a piece of text at a time; returns why it ended.

        Raises:
            UsageError: the system text comes too late, or the question is too long.
            SessionStateError: a step failed, or the logits are not finite.
        """
        best = self._best(self.passages, self._question)
        if best is None:
            best = self._best_by_search()
        if best is None and not self._cancelled.is_set():
            self.passages, self._by_state = (), True
            return (yield from self._otherwise.pieces()) if self._otherwise is not None else ""
        if best is None:
            return "cancelled"
        self._otherwise = None  # its state is needed no more
        self._put_first(best.passages)
        parts = []
        for text in written(self._reader, self._sampling, self._cancelled):
            parts.append(text)
            yield text
        self._put_first(answered_from(best.passages, self._question, "".join(parts)))
        return self._reader.finish_reason or "cancelled"

    def _best_by_search(self) -> Prompt | None:
        """The prompt of what fits the question in other words best; the reader stands in it."""
        if self._search is None or self._cancelled.is_set():
            return None
        self._begin_anew()
        words, found = self._search(self._reader, self._cancelled)
        judged = self._best(found, words)
        if judged is None:
            return None
        passages = self.passages
        best = self._best(judged.passages, self._question, judged=True)
        self.passages = passages
        return best

    def _best(
        self, found: Sequence[Passage], question: str, *, judged: bool = False
    ) -> Prompt | None:
        if not found or self._cancelled.is_set():
            return None
        prompts = self._prompts(found, question, judged)
        self._begin_anew()
        return self._choose(prompts)

    def _begin_anew(self) -> None:
        if self._reader.position:
            self._reader = self._blank()

    def _choose(self, choice: Sequence[Prompt]) -> Prompt | None:
        """Read each prompt up to its last token; the reader stands in the best of them then.

        Returns:
            It; None where none fits, or the answer was cancelled.
        """
        opening, best, most = self._reader, None, -math.inf
        alone, root = -math.inf, 0.0
        first = max(prompt.score for prompt in choice)
        begun = min(shared(choice[0].tokens, prompt.tokens[:-1]) for prompt in choice)
        begun = min(begun, *(prompt.asked.start - 1 for prompt in choice))
        progress = None
        if self._tell is not None:
            total = begun + sum(len(prompt.tokens) - 1 - begun for prompt in choice)
            progress = QuestionProgress(self._tell, self._question, total, self.position)
        opening.follow(progress)
        if not self._cancelled.is_set():
            opening.feed(choice[0].tokens[:begun])
        chosen, fitting = opening, list[Passage]()
        for prompt in choice:
            if self._cancelled.is_set():
                break
            self._reader = opening.fork() if len(choice) > 1 else opening
            self._reader.follow(progress)
            asked = range(prompt.asked.start - begun, prompt.asked.stop - begun)
            likely, count = self._reader.likelihood(prompt.tokens[begun:], asked), len(asked)
            if _signs(prompt) >= OF_SIGNS:
                likely += BEHIND_SIGNS * math.sqrt(count)
            fits = likely / max(1, count) + FOUND * prompt.score / max(first, 1e-9)
            if not prompt.passages:
                alone, root = likely, math.sqrt(count + 1)
            elif likely > alone - root * _leeway(prompt) or prompt.share >= HELD:
                fitting += prompt.passages
                if fits > most:
                    chosen, best, most = self._reader, prompt, fits
        self._reader = chosen
        if self._cancelled.is_set():
            return None
        self.passages = tuple(fitting)
        return best

    def _put_first(self, passages: Sequence[Passage]) -> None:
        others = [passage for passage in self.passages if passage not in passages]
        self.passages = (*passages, *others)


def _leeway(prompt: Prompt) -> float:
    """By how much unlikelier than by itself a question may be behind a prompt; see UNLIKELIER."""
    if prompt.likeness is None:
        return UNLIKELIER
    return BY_LIKENESS * (prompt.likeness - UNLIKE)


def _signs(prompt: Prompt) -> float:
    """Share of the characters of a prompt's passages that are no letters, digits or spaces."""
    letters = signs = 0
    for passage in prompt.passages:
        for character in passage.text:
            # The marks of Thai and Hindi are parts of their letters.
            if character.isalnum() or unicodedata.category(character)[0] == "M":
                letters += 1
            elif not character.isspace():
                signs += 1
    return signs / max(1, letters + signs)
