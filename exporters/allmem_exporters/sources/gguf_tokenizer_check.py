"""Compares the tokenizer made of a GGUF file with the one that transformers makes of it."""

from __future__ import annotations

from pathlib import Path

from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from allmem_exporters.errors import ConversionError
from allmem_exporters.sources.gguf_metadata import Metadata
from allmem_exporters.sources.gguf_splits import SPLITS
from allmem_exporters.sources.gguf_tokenizer import BYTE_PAIRS
from allmem_exporters.tokenizer_conversion import done
from allmem_exporters.tokenizer_works import Comparison


def compare_tokenizers(file: Path, metadata: Metadata, out: Path) -> str:
    """Compare them on awkward texts and on every token that is found whole.

    Args:
        file: the GGUF file.
        metadata: of it.
        out: folder with our tokenizer.

    Returns:
        What was compared.

    Raises:
        ConversionError: a text is cut differently; names it.
    """
    byte_pairs = metadata.text("tokenizer.ggml.model") == BYTE_PAIRS
    split = metadata.text("tokenizer.ggml.pre", "default")
    found = done(
        Comparison(
            str(file.absolute()),
            str(out.absolute()),
            byte_pairs,
            whole_words=byte_pairs and SPLITS[split].whole_words,
            own_split=byte_pairs and not _splits_as_transformers(split),
        ),
        f"{metadata.name}: transformers makes no tokenizer of it to compare ours with",
        "`--no-check` converts the file without the comparison.",
    )
    if "text" in found:
        raise ConversionError(
            f"{metadata.name}: its tokenizer cuts {found['text']!r} into {found['ours']}, that of "
            f"transformers into {found['theirs']}.",
            "This is a defect of the conversion: please report it. `--no-check` converts "
            "the file without the comparison.",
        )
    return f"tokens of {found['count']} awkward texts are those of transformers' tokenizer"


def _splits_as_transformers(split: str) -> bool:
    """Whether transformers knows a way of splitting; it takes all others for GPT-2's."""
    return split in GGUF_PRE_TOKENIZER_SPLITS or SPLITS[split] == SPLITS["gpt-2"]
