"""Makes a tokenizer.json of lists that a file states, in a process that has limits.

Nothing here imports PyTorch: that process starts for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allmem_runtime.spec import TOKENIZER_FILE

SPACE = "\u2581"
"""What sentence pieces have for a space."""


@dataclass(frozen=True, slots=True)
class Making:
    """A tokenizer that merges bytes or sentence pieces.

    Attributes:
        out: folder that the file is written to.
        tokens: the vocabulary, in order.
        merges: pairs of tokens that make a third, the first ones first.
        scores: of the tokens, by which merges are found where none are listed; else none.
        patterns: of bytes; each splits what the ones before it left. None for sentence pieces.
        whole_words: whether a word that is a token is not merged from its parts; of bytes.
        prefixed: whether a text begins with a space of its own; of sentence pieces.
        added: tokens that are found whole, and whether each controls.
        begin: the token that every text begins with, and its number.
    """

    out: str
    tokens: list[str]
    merges: list[tuple[str, str]]
    scores: list[float]
    patterns: list[str] | None
    whole_words: bool
    prefixed: bool
    added: list[tuple[str, bool]]
    begin: tuple[str, int] | None

    def load(self) -> None:
        """See ``Work``."""
        import tokenizers  # noqa: F401
        from transformers.tokenization_utils_base import generate_merges  # noqa: F401

    def run(self) -> None:
        """See ``Work``."""
        from tokenizers import AddedToken, processors

        pieces = self._sentence_pieces if self.patterns is None else self._byte_pairs
        tokenizer = pieces({token: number for number, token in enumerate(self.tokens)})
        tokenizer.add_tokens(
            [AddedToken(text, normalized=False, special=special) for text, special in self.added]
        )
        if self.begin is not None:
            text, number = self.begin
            tokenizer.post_processor = processors.TemplateProcessing(
                single="begin $A",
                special_tokens=[{"id": "begin", "ids": [number], "tokens": [text]}],
            )
        tokenizer.save(str(Path(self.out, TOKENIZER_FILE)), pretty=False)

    def _byte_pairs(self, vocabulary: dict[str, int]) -> Any:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

        merges = [(first, second) for first, second in self.merges]
        tokenizer = Tokenizer(
            models.BPE(vocab=vocabulary, merges=merges, ignore_merges=self.whole_words)
        )
        steps = [
            pre_tokenizers.Split(Regex(one), behavior="isolated") for one in self.patterns or ()
        ]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer

    def _sentence_pieces(self, vocabulary: dict[str, int]) -> Any:
        """Pieces merged by their scores; texts, and parts behind control tokens, get a space."""
        from tokenizers import Tokenizer, decoders, models, normalizers
        from transformers.tokenization_utils_base import generate_merges

        merges = [(first, second) for first, second in self.merges] or generate_merges(
            vocabulary, dict(zip(self.tokens, self.scores, strict=True))
        )
        tokenizer = Tokenizer(
            models.BPE(vocab=vocabulary, merges=merges, fuse_unk=True, byte_fallback=True)
        )
        prefix = [normalizers.Prepend(SPACE)] if self.prefixed else []
        tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
        stripped = [decoders.Strip(content=" ", left=1, right=0)] if self.prefixed else []
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *stripped]
        )
        return tokenizer
