"""What is done with the tokenizer of a folder or file of others, in a process that has limits.

Nothing here imports PyTorch: that process starts for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from allmem_exporters.tokenizer_making import Making
from allmem_runtime.spec import TOKENIZER_FILE


class Work(Protocol):
    """A task of plain values, which another process can be given."""

    def load(self) -> None:
        """Load the libraries: what they take is not what the task takes."""

    def run(self) -> Any:
        """Do it in this process and give plain values; libraries raise what they like."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """A tokenizer in another form, to be made a ``tokenizer.json``.

    Attributes:
        folder: that it lies in.
        out: folder to write to.
    """

    folder: str
    out: str

    def load(self) -> None:
        """See ``Work``."""
        from transformers import AutoTokenizer  # noqa: F401

    def run(self) -> None:
        """See ``Work``."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            self.folder, local_files_only=True, trust_remote_code=False
        )
        tokenizer.save_pretrained(self.out)


@dataclass(frozen=True, slots=True)
class Encoding:
    """A text that is to be encoded, as the runtime does it: nothing in it is a control token.

    Attributes:
        folder: with the ``tokenizer.json``.
        text: what somebody wrote.
        most: tokens of its beginning that are wanted.
    """

    folder: str
    text: str
    most: int

    def load(self) -> None:
        """See ``Work``."""
        from allmem_runtime.text import tokenizer  # noqa: F401

    def run(self) -> list[int]:
        """The tokens."""
        from allmem_runtime.text.segments import Segmenter
        from allmem_runtime.text.tokenizer import Tokenizer

        tokenizer = Tokenizer.from_file(Path(self.folder, TOKENIZER_FILE))
        segmenter = Segmenter(joins=tokenizer.joins)
        tokens: list[int] = []
        for segment in (*segmenter.push(self.text), *segmenter.flush()):
            if len(tokens) >= self.most:
                break
            tokens += tokenizer.encode_text(segment.text, "text" if tokens else "start")
        return tokens[: self.most]


@dataclass(frozen=True, slots=True)
class Addition:
    """Tokens that are to be added to a ``tokenizer.json``.

    Attributes:
        folder: with the file, which is written anew.
        numbered: each with its number and what the library's ``AddedToken`` takes.
        more: without numbers: each gets the next one, where the model has a row for it.
        rows: of the embedding.
    """

    folder: str
    numbered: list[tuple[int, dict[str, Any]]]
    more: list[dict[str, Any]]
    rows: int

    def load(self) -> None:
        """See ``Work``."""
        import tokenizers  # noqa: F401

    def run(self) -> list[int | None]:
        """The numbers that those with a number got; the file is written if these are theirs."""
        from tokenizers import AddedToken, Tokenizer

        path = Path(self.folder, TOKENIZER_FILE)
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        tokenizer.add_tokens([AddedToken(**token) for _, token in self.numbered])
        for token in self.more:
            following = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
            if tokenizer.token_to_id(token["content"]) is not None or following < self.rows:
                tokenizer.add_tokens([AddedToken(**token)])
        found = [tokenizer.token_to_id(token["content"]) for _, token in self.numbered]
        if found == [number for number, _ in self.numbered]:
            tokenizer.save(str(path), pretty=False)
        return found


AWKWARD = (
    "The key hangs in the hall; who's there? I'LL see, they've gone.",
    "1 22 333 4444 3,141.59 2nd \u00bd \u0664\u0665",
    "a  b   c\t\td \n\n\n e \r\n f ",
    "\n",
    "\t x",
    "\u00dcber na\u00efve caf\u00e9 e\u0301 \ufb01 \u0130",
    "\u6771\u4eac \u3072\u3089\u304c\u306a \ud55c\uad6d\uc5b4",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e9\u05dc",
    "\U0001f469\u200d\U0001f680 \U0001f1e9\U0001f1ea \u2713",
    "__init__({}) // end; x->y != a[0]['k'] \\n",
    "https://a.b/c?d=e&f#g user@host $5.00 50%",
    "<|x|> </s> <s>",
    "\u00a0\u200b\u3000wide",
    "\ufffd\u0000\u0007",
    "A" * 40 + "b" * 40,
)
"""Texts on which tokenizers differ if their rules do."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A tokenizer made of a GGUF file, to be compared with the one that transformers makes of it.

    Where transformers is known to depart from llama.cpp, its tokenizer gets the same rule: it
    knows neither whole words nor some splits, and a space before sentence pieces only at the
    start of a text.

    Attributes:
        file: the GGUF file.
        folder: with our ``tokenizer.json``.
        byte_pairs: whether it merges bytes; else sentence pieces.
        whole_words: whether a word that is a token is not merged from its parts.
        own_split: whether transformers splits as ours, not by its own rule.
    """

    file: str
    folder: str
    byte_pairs: bool
    whole_words: bool
    own_split: bool

    def load(self) -> None:
        """See ``Work``."""
        from transformers.integrations.gguf import gguf_tokenizer_mapping  # noqa: F401

    def run(self) -> dict[str, Any]:
        """How many texts were compared; of one that is cut otherwise, it and both its tokens."""
        from tokenizers import Tokenizer

        # Not AutoTokenizer, which would rather read a tokenizer.json that lies beside the file.
        from transformers.integrations.gguf.gguf_tokenizer_mapping import (
            convert_gguf_tokenizer,
            get_gguf_tokenizer,
        )

        ours = Tokenizer.from_str(Path(self.folder, TOKENIZER_FILE).read_text(encoding="utf-8"))
        architecture, described, _ = get_gguf_tokenizer(self.file)
        theirs, _ = convert_gguf_tokenizer(architecture, described)
        if self.byte_pairs:
            theirs.model.ignore_merges = self.whole_words
        if self.own_split:
            theirs.pre_tokenizer = ours.pre_tokenizer
        count = 0
        for text in self._texts(ours, theirs):
            found = ours.encode(text, add_special_tokens=False).ids
            wanted = theirs.encode(text, add_special_tokens=False).ids
            count += 1
            if found != wanted:
                return {"count": count, "text": text, "ours": found[:20], "theirs": wanted[:20]}
        return {"count": count}

    def _texts(self, ours: Any, theirs: Any) -> list[str]:
        both = {token.content for token in theirs.get_added_tokens_decoder().values()}
        whole = [token.content for token in ours.get_added_tokens_decoder().values()]
        texts = [
            text for text in AWKWARD
            if self.byte_pairs
            or not (text.startswith(" ") or any(token in text for token in whole))
        ]  # fmt: skip
        return texts + [
            f"th {token}in" if self.byte_pairs else token for token in whole if token in both
        ]


KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (Conversion, Encoding, Addition, Comparison, Making)
}
"""All works by their names."""
