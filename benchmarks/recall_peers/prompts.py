"""The prompts that our rows have answered, made again from the same seed, to the last token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from allmem_runtime.config import Manifest
from allmem_runtime.errors import UsageError
from allmem_runtime.evaluation.asking import in_turn
from allmem_runtime.evaluation.items import Encoder, Item, Style
from allmem_runtime.evaluation.ruler import ruler_items
from allmem_runtime.evaluation.ruler_package import Task
from allmem_runtime.files.package import Package
from allmem_runtime.loaded_model import Texts
from allmem_runtime.model import Model
from allmem_runtime.text.chat import ChatTemplate
from allmem_runtime.text.tokenizer import Tokenizer
from benchmarks.recall_peers.ours import Ours
from benchmarks.recall_peers.rows import Peer


@dataclass(frozen=True, slots=True)
class _Texts:
    """All that an encoder asks of a model; no weights are loaded for it."""

    tokenizer: Tokenizer
    chat: ChatTemplate
    manifest: Manifest


class Prompts:
    """Writes prompts as `allmem eval` does for this model, and reads answers.

    Args:
        package: a model folder: its tokenizer, chat template and end tokens.
        chat: in the chat template or as plain text.
        prefix_in: whose turn holds the beginning of the answer.
    """

    def __init__(self, package: Package, ours: Ours) -> None:
        texts = Texts(package)
        self._path = package.tokenizer
        self._tokenizer = texts.tokenizer
        self.style = Style(ours.chat, ours.prefix_in)
        model = _Texts(texts.tokenizer, texts.chat, package.manifest)
        self._encoder = Encoder(cast(Model, model), self.style)
        self.ends = sorted(package.manifest.end_tokens)

    def ids(self, item: Item) -> list[int]:
        """The tokens that a model of ours reads before it answers the item's only question."""
        return [
            *self._encoder.document(item),
            *self._encoder.question(item, item.questions[0]),
        ]

    def text(self, answer: Sequence[int]) -> str:
        """An answer's text, decoded as ours are."""
        decoder = self._tokenizer.stream()
        return "".join([decoder.push(token) for token in answer]) + decoder.finish()

    def digest(self, item: Item) -> str:
        """As `allmem eval` keeps it beside a result."""
        return self.style.digest(item, item.questions[0])

    def check_names(self, peer: Peer, ids: Sequence[int]) -> None:
        """Whether the peer means the same by these tokens.

        Raises:
            UsageError: a token has another name there.
        """
        each = sorted({*ids, *self.ends})
        names = peer.tell(do="names", ids=each)["names"]
        for token, name in zip(each, names, strict=True):
            ours = "".join(self._tokenizer.names([token]))
            if ours != name:
                raise UsageError(
                    f"Token {token} is {ours!r} here and {name!r} in the GGUF file.",
                    "Name a model folder that was made of this file.",
                )

    def items(
        self, ours: Ours, tasks: dict[str, Task], lengths: Sequence[int], samples: int,
        say: Callable[[str], None],
    ) -> list[Item]:  # fmt: skip
        """The items that a row of ours has answered, the first samples of all first.

        Raises:
            BenchmarkError: the benchmark's package is missing.
            UsageError: none of the prompts made here is one of theirs, or one has other tokens.
        """
        made: list[Item] = []
        for name, task in tasks.items():
            say(f"making the prompts of {name}")
            overhead = self._encoder.overhead()
            made += ruler_items(task, lengths, samples, ours.seed, self._path, overhead)
        known = ours.prompts()
        items = []
        for item in in_turn(made):
            tokens = known.get((item.task, item.column, item.sample, self.digest(item)))
            if tokens is None:
                continue
            if tokens != (here := len(self.ids(item))):
                raise UsageError(
                    f"{item.task} {item.column} #{item.sample} has {here} tokens here and {tokens} "
                    "in the file of results.",
                    "Name the model folder that it was made with.",
                )
            items.append(item)
        if not items:
            raise UsageError(
                f"None of the {len(made)} prompts made here is in the file of results.",
                f"It was made with {ours.benchmark} and the lengths "
                f"{', '.join(ours.values('column'))}: install that, and name the same model.",
            )
        if len(items) < len(made):
            say(f"{len(made) - len(items)} prompts were answered by no row of ours: left out")
        return items


def holding_notices(
    sizes: dict[str, int], items: Sequence[Item], ids: Callable[[Item], list[int]]
) -> list[str]:
    """A line for each shifted row and column whose prompts it holds whole.

    Args:
        sizes: tokens of the contexts that are shifted, by row.
        items: the prompts.
        ids: the tokens of one.
    """
    longest: dict[str, int] = {}
    for item in items:
        tokens = len(ids(item)) + item.questions[0].max_tokens
        longest[item.column] = max(tokens, longest.get(item.column, 0))
    return [
        f"notice: {name} holds the prompts of {column} whole (at most {tokens:,} "
        "tokens); nothing is discarded there"
        for name, size in sizes.items()
        for column, tokens in longest.items()
        if tokens <= size
    ]
