"""A small byte-level tokenizer, trained in a moment, with the control tokens of ChatML."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SAMPLE = "The key of the boathouse hangs in the hall. Über den Flüssen, 東京 👩‍🚀.\n" * 3


@cache
def byte_level_json() -> str:
    """The text of a ``tokenizer.json``: 320 tokens, one ordinary-looking control token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(CONTROL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([SAMPLE], trainer)
    tokenizer.add_tokens([AddedToken("<|tool|>", special=False), AddedToken("<think>")])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=64)
    return str(tokenizer.to_str())


def write_byte_level(folder: Path) -> Path:
    """Write the tokenizer into ``folder``."""
    path = folder / "tokenizer.json"
    path.write_text(byte_level_json(), encoding="utf-8")
    return path
