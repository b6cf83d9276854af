"""Makes the sequences of a recipe and writes them into shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from allmem_exporters.errors import DataError
from allmem_exporters.finetune.data import tasks
from allmem_exporters.finetune.data.chats import chat_sequence, read_chats
from allmem_exporters.finetune.data.documents import (
    Document,
    find_files,
    read_text,
    separate,
)
from allmem_exporters.finetune.data.exercises import Exercise, write_exercise
from allmem_exporters.finetune.data.packing import pack
from allmem_exporters.finetune.data.questions import Collection, Question, read_questions
from allmem_exporters.finetune.data.recipe import Recipe, Source
from allmem_exporters.finetune.data.repeats import repeats
from allmem_exporters.finetune.data.sequence import SPLITS, Sequence
from allmem_exporters.finetune.data.shard_writer import ShardWriter
from allmem_exporters.finetune.data.splits import fingerprint
from allmem_exporters.finetune.data.tokens import Tokens
from allmem_exporters.finetune.data.walks import distractors, prose

Progress = Callable[[int, int, str], None]


@dataclass(slots=True)
class Tally:
    """What was made of one source and split: sequences and their tokens."""

    wanted: int
    sequences: int = 0
    tokens: int = 0
    counted: int = 0


class Builder:
    """All sources of a recipe, read once; yields sequences.

    Args:
        recipe: checked.
        tokens: of the checkpoint.
        length: of the sequences; None for the recipe's.

    Raises:
        DataError: a source cannot be read; names the file.
    """

    def __init__(self, recipe: Recipe, tokens: Tokens, length: int | None = None) -> None:
        self._recipe = recipe
        self._tokens = tokens
        self._length = length or recipe.length
        self._questions: dict[str, Collection] = {}
        self._documents: dict[str, list[Document]] = {}
        seen: set[bytes] = set()
        for source in recipe.sources:
            if source.kind in ("squad", "hotpotqa"):
                path = recipe.base / source.files[0]
                collection = read_questions(path, source.kind, source.heldout, source.reserved)
                self._questions[source.name] = collection
                self._documents[source.name] = [
                    document for split in SPLITS for document in collection.documents(split)
                ]
                # A text with the same paragraph must not bring it in by another door.
                seen |= {fingerprint(paragraph) for paragraph in collection.reserved}
                seen |= {fingerprint(p) for side in collection.paragraphs.values() for p in side}
        for source in recipe.sources:
            if source.kind == "text" and source.files:
                files = find_files(source.files, recipe.base)
                texts = ((f"{p.parent.name}/{p.name}", read_text(p)) for p in files)
                self._documents[source.name] = separate(texts, source.heldout, seen)

    def sequences(self, source: Source, split: str) -> Iterator[Sequence]:
        """As many sequences as the recipe wants, or as many as there is material for."""
        made = {
            "text": self._text,
            "chat": self._chat,
            "squad": self._asked,
            "hotpotqa": self._asked,
            "repeats": self._repeats,
        }.get(source.kind, self._task)(source, split)
        return islice(made, source.counts[split])

    def _random(self, source: Source, split: str, number: int = 0) -> Random:
        return Random(f"{self._recipe.seed}|{source.name}|{split}|{number}|{self._length}")

    def _text(self, source: Source, split: str) -> Iterator[Sequence]:
        names = source.of or (source.name,)
        documents = self._of_split(names, split)
        if documents:
            yield from pack(
                documents,
                self._tokens,
                self._length,
                self._random(source, split),
                wanted=source.counts[split],
                chat_share=source.chat_share,
            )

    def _chat(self, source: Source, split: str) -> Iterator[Sequence]:
        for name in source.files:
            for side, place, messages in read_chats(self._recipe.base / name, source.heldout):
                if side == split:
                    sequence = chat_sequence(messages, self._tokens, self._length, split, place)
                    if sequence is not None:
                        yield sequence

    def _asked(self, source: Source, split: str) -> Iterator[Sequence]:
        """Each question once, then again in other company."""
        collection = self._questions[source.name]
        questions = list(collection.questions[split])
        number = 0
        while questions:
            random = self._random(source, split, number)
            random.shuffle(questions)
            rest = list(questions)
            while rest:
                chosen = self._some(rest, source.questions)
                exercise = _asking(chosen, collection.paragraphs[split], source, random)
                yield write_exercise(exercise, self._tokens, self._length, split, random)
                number += 1

    def _some(self, rest: list[Question], wanted: int) -> list[Question]:
        """Take questions whose evidence leaves room for something else."""
        chosen: list[Question] = []
        size = 0
        while rest and len(chosen) < wanted:
            size += sum(self._tokens.count(p) + 40 for p in rest[-1].evidence)
            if chosen and size > self._length * 0.7:
                break
            chosen.append(rest.pop())
        return chosen

    def _task(self, source: Source, split: str) -> Iterator[Sequence]:
        number = 0
        while True:
            random = self._random(source, split, number)
            yield write_exercise(
                self._exercise(source, split, random), self._tokens, self._length, split, random
            )
            number += 1

    def _exercise(self, source: Source, split: str, random: Random) -> Exercise:
        if source.kind == "keyvalue":
            return tasks.keyvalue(random, source.questions)
        if source.kind == "common":
            budget = round(self._length * random.uniform(0.6, 1.0)) - 300
            return tasks.common(random, max(100, budget), self._tokens.count)
        make = {"needle": tasks.needle, "chains": tasks.chains}[source.kind]
        documents = self._haystack(source, split)
        return make(random, source.questions, prose(documents, random), source.name)

    def _repeats(self, source: Source, split: str) -> Iterator[Sequence]:
        documents = self._haystack(source, split)
        number = 0
        while True:
            random = self._random(source, split, number)
            walk = prose(documents, random)
            yield repeats(self._tokens, walk, self._length, split, source.name, random)
            number += 1

    def _haystack(self, source: Source, split: str) -> list[Document]:
        names = (
            source.haystack
            or tuple(
                other.name for other in self._recipe.sources if other.kind == "text" and other.files
            )
            or tuple(self._documents)
        )
        documents = self._of_split(names, split)
        if not documents:
            raise DataError(
                f"Source {source.name!r} finds no {split} documents in {', '.join(names)}.",
                "Add texts, or change the fraction that is held out.",
            )
        return documents

    def _of_split(self, names: tuple[str, ...], split: str) -> list[Document]:
        return [d for name in names for d in self._documents[name] if d.split == split]


def _asking(
    questions: list[Question], others: list[str], source: Source, random: Random
) -> Exercise:
    facts = list(dict.fromkeys(p for question in questions for p in question.evidence))
    near = list(dict.fromkeys(p for question in questions for p in question.distractors))
    return Exercise(
        kind=source.kind,
        source=f"{source.name}: {questions[0].text[:60]}",
        facts=facts,
        questions=[(question.text, question.answer) for question in questions],
        filler=distractors(near, others, set(facts), random),
    )


def build(
    recipe: Recipe,
    tokens: Tokens,
    out: Path,
    *,
    length: int | None = None,
    splits: tuple[str, ...] = SPLITS,
    force: bool = False,
    progress: Progress = lambda done, total, name: None,
) -> dict[tuple[str, str], Tally]:
    """Make everything a recipe wants and write it to ``out``.

    Args:
        recipe: checked.
        tokens: of the checkpoint.
        out: shard folder; appears only when whole.
        length: of the sequences; None for the recipe's.
        splits: which to make.
        force: replace ``out``.
        progress: called with sequences made, sequences wanted, and the source's name.

    Returns:
        What was made, by (kind, split).

    Raises:
        DataError: a source cannot be read or gives nothing; names it.
        StorageError: writing failed.
    """
    total = sum(source.counts[split] for source in recipe.sources for split in splits)
    if not total:
        raise DataError("The recipe asks for no sequences.", "Set sequences in it.")
    description = {
        "length": length or recipe.length,
        "seed": recipe.seed,
        "sources": [source.name for source in recipe.sources],
    }
    tallies: dict[tuple[str, str], Tally] = {}
    done = 0
    with ShardWriter(
        out,
        vocab_size=tokens.vocab_size,
        tokenizer=tokens.digest,
        recipe=description,
        force=force,
    ) as writer:
        progress(0, total, "reading sources")
        builder = Builder(recipe, tokens, length)
        for split in splits:
            for source in recipe.sources:
                key = (source.name, split)
                tally = tallies[key] = Tally(wanted=source.counts[split])
                for sequence in builder.sequences(source, split):
                    writer.add(sequence)
                    done += 1
                    tally.sequences += 1
                    tally.tokens += len(sequence)
                    tally.counted += int(sequence.counts[1:].sum())
                    progress(done, total, source.name)
    return tallies
