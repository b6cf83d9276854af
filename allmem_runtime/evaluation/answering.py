"""Read a document once, then answer each question from that very state."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from allmem_runtime.evaluation.blank_memory import (
    EvaluationSession,
    InitialWeights,
    initial_weights,
)
from allmem_runtime.evaluation.items import Encoder, Item, Style
from allmem_runtime.evaluation.rows import Row
from allmem_runtime.generation.sampling import Sampling, pick
from allmem_runtime.model import Model

_GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a row said to a question.

    Args:
        row: which row.
        question: number of the question within its item.
        text: the answer as it came, without its given beginning.
        tokens: read before the answer began.
        reading_seconds: for the document, shared by all questions about it.
        answering_seconds: for the question and the answer.
    """

    row: Row
    question: int
    text: str
    tokens: int
    reading_seconds: float
    answering_seconds: float


class Reader:
    """One model answering for the rows that share it.

    Args:
        model: of the rows.
        style: how prompts are written.
    """

    def __init__(self, model: Model, style: Style) -> None:
        self._model = model
        self._encoder = Encoder(model, style)
        self._session = EvaluationSession(model, undo=False)
        self._initial: InitialWeights | None = None

    def answers(self, item: Item, wanted: Sequence[tuple[Row, int]]) -> Iterator[Answer]:
        """The answers to the questions that are wanted, by row and number of the question.

        The document is read once; every question is asked of a fork of that reading.

        Raises:
            SessionStateError: a step failed, or the state is not finite.
        """
        session = self._session
        session.reset()
        begun = time.perf_counter()
        session.feed(self._encoder.document(item))
        reading = time.perf_counter() - begun
        for number, (row, index) in enumerate(wanted):
            begun = time.perf_counter()
            # The last one may use the state up: rings of full attention are large.
            last = number == len(wanted) - 1
            asked = session if last else session.fork()
            if row.reset:
                asked.forget_memory(self._blank())
            question = item.questions[index]
            ids = self._encoder.question(item, question)
            tokens = asked.position + asked.pending + len(ids)
            text = greedy(asked, ids, question.max_tokens)
            spent = time.perf_counter() - begun
            yield Answer(row, index, text, tokens, reading, spent)

    def _blank(self) -> InitialWeights:
        if self._initial is None:
            self._initial = initial_weights(self._model)
        return self._initial


def greedy(session: EvaluationSession, ids: Sequence[int], max_tokens: int) -> str:
    """Feed tokens, then take the most probable token until the end token or the limit."""
    model = session.model
    decoder = model.tokenizer.stream()
    text: list[str] = []
    logits = session.feed(ids, logits="last")
    for drawn in range(1, max_tokens + 1):
        token = pick(logits, _GREEDY, (), session.position, 0)
        if token in model.manifest.end_tokens:
            break
        text.append(decoder.push(token))
        if drawn < max_tokens:
            logits = session.feed([token], logits="last")
    return "".join(text) + decoder.finish()
