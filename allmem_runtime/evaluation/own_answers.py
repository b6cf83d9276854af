"""A model's own answers to prompts, through the runtime that serves it: data on its own policy."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from allmem_runtime.errors import SourceError, UsageError
from allmem_runtime.evaluation.chat_lines import AnswerFile, Messages, Prompt
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.model import Model
from allmem_runtime.quantities import counted
from allmem_runtime.session.session import Session
from allmem_runtime.text.turns import Turns


class AnsweringSession(Session):
    """A session that answers tokens as they are."""

    def answer_ids(self, ids: Sequence[int], sampling: Sampling) -> str:
        """Feed a prompt up to where its answer begins, and give the whole answer.

        Raises:
            SessionStateError: a step failed, or the logits are not finite.
        """
        with self._operation("a prompt is being answered"):
            self._cursor.queue(ids)
            self._cursor.place.turn = "reply"
            return "".join(self._write(sampling, self.model.chat.stop))


@dataclass(slots=True)
class Tally:
    """What became of the prompts."""

    answered: int = 0
    there: int = 0
    too_long: int = 0
    cut: int = 0


def prompt_ids(model: Model, messages: Messages) -> list[int]:
    """A conversation in the model's template, up to where its last answer begins.

    Raises:
        UsageError: the template has no place for a system text, or a text is too long.
    """
    turns = Turns(model.tokenizer, model.chat, model.manifest.begin_tokens)
    texts = list(messages)
    system = texts.pop(0)[1] if texts[0][0] == "system" else None
    ids = turns.question("start", texts[0][1], system)
    for (_, answer), (_, question) in zip(texts[1::2], texts[2::2], strict=True):
        ids += [*turns.answer(answer), *turns.question("reply", question, None)]
    return ids


def seed_of(seed: int, key: str) -> int:
    """A seed for one prompt: equal ones would draw alike wherever prompts are equally long."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:7])


def answered_by(model: Model, sampling: Sampling) -> dict[str, Any]:
    """Who answers, and how: what must be equal for a file of answers to be gone on with."""
    drawing = dataclasses.asdict(sampling)
    drawing["stop"] = list(sampling.stop)
    return {"model": model.name, "digest": model.package.digest, **drawing}


def answer_prompts(
    model: Model,
    prompts: Sequence[Prompt],
    file: AnswerFile,
    sampling: Sampling,
    *,
    longest: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Tally:
    """Answer each prompt that the file does not hold yet, from a blank state.

    Args:
        model: that answers.
        prompts: in order.
        file: where answers go, each as it is made.
        sampling: how they are drawn; its seed is that of the whole run.
        longest: prompts with more tokens are left out; None takes all.
        say: told a line after each answer.

    Raises:
        SourceError: a prompt cannot be written in the model's template; names its line.
        StorageError: an answer could not be kept.
    """
    tally = Tally()
    session = AnsweringSession(model, undo=False)
    for number, prompt in enumerate(prompts, 1):
        if prompt.key in file.keys:
            tally.there += 1
            continue
        try:
            ids = prompt_ids(model, prompt.messages)
        except UsageError as error:
            raise SourceError(f"line {prompt.line}: {error.message}", error.hint) from None
        if longest is not None and len(ids) > longest:
            tally.too_long += 1
            continue
        begun = time.perf_counter()
        session.reset()
        drawing = dataclasses.replace(sampling, seed=seed_of(sampling.seed or 0, prompt.key))
        answer = session.answer_ids(ids, drawing)
        written = session.position + session.pending - len(ids)
        file.add(prompt, answer, tokens=written, finish_reason=session.finish_reason)
        tally.answered += 1
        tally.cut += session.finish_reason == "length"
        say(
            f"[{number}/{len(prompts)}] line {prompt.line}: {counted(len(ids), 'token')} read, "
            f"{written} written ({time.perf_counter() - begun:.1f} s)"
        )
    return tally
