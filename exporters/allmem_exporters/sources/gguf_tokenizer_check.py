"""Compares the tokenizer made of a GGUF file with the one that transformers makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from allmem_exporters.errors import ConversionError
from allmem_exporters.sources.gguf_metadata import Metadata
from allmem_exporters.sources.gguf_splits import SPLITS
from allmem_exporters.sources.gguf_tokenizer import BYTE_PAIRS
from allmem_exporters.tokenizer_file import named_failure, read_tokenizer

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

_OTHER_SPLITS = ("default", "smollm")
"""Splits that transformers takes for GPT-2's."""


def compare_tokenizers(file: Path, metadata: Metadata, out: Path) -> str:
    """Compare them on awkward texts and on every token that is found whole.

    Where transformers is known to depart from llama.cpp, its tokenizer gets the same rule: it
    knows neither whole words nor some splits, and a space before sentence pieces only at the
    start of a text.

    Args:
        file: the GGUF file.
        metadata: of it.
        out: folder with our tokenizer.

    Returns:
        What was compared.

    Raises:
        ConversionError: a text is cut differently; names it.
    """
    ours = read_tokenizer(out / "tokenizer.json")
    with named_failure(
        f"{metadata.name}: transformers makes no tokenizer of it to compare ours with",
        "`--no-check` converts the file without the comparison.",
    ):
        # Not AutoTokenizer, which would rather read a tokenizer.json that lies beside the file.
        from transformers.integrations.gguf.gguf_tokenizer_mapping import (
            convert_gguf_tokenizer,
            get_gguf_tokenizer,
        )

        architecture, described, _ = get_gguf_tokenizer(str(file))
        theirs, _ = convert_gguf_tokenizer(architecture, described)
        bytes_ = metadata.text("tokenizer.ggml.model") == BYTE_PAIRS
        split = metadata.text("tokenizer.ggml.pre", "default")
        if bytes_:
            theirs.model.ignore_merges = SPLITS[split].whole_words
            if split in _OTHER_SPLITS:
                theirs.pre_tokenizer = ours.pre_tokenizer
        count = 0
        for text in _texts(ours, theirs, bytes_=bytes_):
            found = ours.encode(text, add_special_tokens=False).ids
            wanted = theirs.encode(text, add_special_tokens=False).ids
            count += 1
            if found != wanted:
                raise ConversionError(
                    f"{metadata.name}: its tokenizer cuts {text!r} into {found[:20]}, that of "
                    f"transformers into {wanted[:20]}.",
                    "This is a defect of the conversion: please report it. `--no-check` converts "
                    "the file without the comparison.",
                )
    return f"tokens of {count} awkward texts are those of transformers' tokenizer"


def _texts(ours: Tokenizer, theirs: Tokenizer, *, bytes_: bool) -> Iterator[str]:
    both = {token.content for token in theirs.get_added_tokens_decoder().values()}
    whole = [token.content for token in ours.get_added_tokens_decoder().values()]
    for text in AWKWARD:
        if bytes_ or not (text.startswith(" ") or any(token in text for token in whole)):
            yield text
    for token in whole:
        if token in both:
            yield f"th {token}in" if bytes_ else token
