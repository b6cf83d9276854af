"""The finding of passages for a question, and who answers from them or by the state."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from allmem_runtime.arguments import as_count, check_text
from allmem_runtime.errors import AllMemError
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.session.by_state import ByState
from allmem_runtime.session.generating import Generating
from allmem_runtime.session.kept_text import Passage
from allmem_runtime.session.prompts import LONGEST_COMPARED, Prompt, prompts
from allmem_runtime.session.question_progress import Tell
from allmem_runtime.session.rereading import Rereading
from allmem_runtime.session.search_words import KNOWN_SHARE, SAMPLE, language_of, search_words
from allmem_runtime.session.wanted import passages_wanted

DEFAULT_PASSAGES = 3
"""Most passages that are read again before a question."""

PASSAGES_SHARE = 1 / 3
"""Part of the window that they may take together."""

COUNT = "Give how many at most, 0 or more, or a list of passages."


class Finding(Generating):
    """A state that finds passages of what it has read."""

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
        most = as_count("passages", most, COUNT)
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

    def _by_state(
        self, question: str, sampling: Sampling | None, system: str | None, tell: Tell | None
    ) -> ByState:
        """Who answers by what this session knows, and moves it on."""

        def tokens() -> list[int]:
            found = self._question(question, system)
            self._cursor.place.lead = ""  # it is among the tokens
            return found

        return ByState(self, question, tokens, sampling, tell)

    def _rereading(
        self,
        question: str,
        found: Sequence[Passage],
        most: int,
        sampling: Sampling | None,
        system: str | None,
        tell: Tell | None,
        asked: Finding,
        otherwise: ByState | None = None,
    ) -> Rereading | None:
        """Who answers from passages; None where there are none, and nowhere to look for others.

        Args:
            question: of the user.
            found: passages for it, the best first.
            most: passages that may be looked for; 0 if those were chosen by the caller.
            sampling: how to draw.
            system: instruction that opens the conversation.
            tell: is told how far the reading is.
            asked: finds further passages: this session, or a fork that stays where this one is now.
            otherwise: answers where none fits; None leaves that to the caller.
        """
        language = self._translated_to(question) if most else ""
        if not found and not language:
            return None
        with self._guard.lock:
            self._cursor.check()
            place, earlier = self._cursor.place.copy(), self._earlier

        def blank() -> Finding:
            session = type(self)(self.model, undo=False)
            session.piece, session._cursor.place.seed = self.piece, place.seed
            return session

        def reread(found: Sequence[Passage], question: str, judged: bool) -> list[Prompt]:
            self._turns.question(place.turn, question, system)  # it may be too late for a system
            opening = (place.system if system is None else system) or None
            bare = most > 0 and not judged
            return prompts(self._turns, self._count, found, question, earlier, opening, bare=bare)

        def search(
            session: Generating, cancelled: threading.Event
        ) -> tuple[str, Sequence[Passage]]:
            words = search_words(session, self._turns, question, language, cancelled)
            return words, () if cancelled.is_set() else asked.find_passages(words, most)

        return Rereading(
            blank, found, question, reread, sampling, place.position, tell,
            search=search if language else None, otherwise=otherwise,
        )  # fmt: skip

    def _translated_to(self, question: str) -> str:
        """The language of the text, if a question is in another one; empty otherwise."""
        if self._text is None or self._count(question) > LONGEST_COMPARED:
            return ""
        try:
            with self._guard.lock:
                at = self._cursor.place.text
                if not at or self._text.known(at, question) >= KNOWN_SHARE:
                    return ""
                language = language_of(self._text.beginning(at, SAMPLE))
        except AllMemError as error:
            self.lose_text(error)
            return ""
        return "" if language == language_of(question) else language

    def _question(self, question: str, system: str | None) -> list[int]:
        """A question and all around it, where this session stands."""
        place = self._cursor.place
        return self._turns.question(place.turn, question, system, place.lead)

    def _count(self, text: str) -> int:
        return len(self.model.tokenizer.encode_text(text))
