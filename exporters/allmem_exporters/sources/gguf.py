"""A pretrained model in a GGUF file: sizes from its metadata, weights dequantized to float32.

Names and layout are those of llama.cpp's converter. Anything in the file that has no counterpart
is an error: a tensor left aside would be a silently different model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from allmem_exporters.errors import ConversionError
from allmem_exporters.generic.interface import Unsupported
from allmem_exporters.generic.options import generic_options
from allmem_exporters.model.families import FAMILIES
from allmem_exporters.model.rope_options import FACTORS
from allmem_exporters.sources.decoder import backbone_options, sha256_of, unknown_family
from allmem_exporters.sources.gguf_architectures import ARCHITECTURES
from allmem_exporters.sources.gguf_config import config_of
from allmem_exporters.sources.gguf_described import Described, special_tokens
from allmem_exporters.sources.gguf_file import GgufFile
from allmem_exporters.sources.gguf_metadata import Metadata
from allmem_exporters.sources.gguf_pretrained import pretrained_of
from allmem_exporters.sources.gguf_tokenizer import write_tokenizer
from allmem_exporters.sources.gguf_tokenizer_check import compare_tokenizers
from allmem_exporters.sources.gguf_weights import GgufWeights
from allmem_exporters.sources.packed_weights import UnpackedWeights
from allmem_exporters.sources.pretrained import Pretrained
from allmem_exporters.tokenizer_file import named_failure
from allmem_runtime.strict_json import is_whole

_ORIGINAL = "Convert the original safetensors checkpoint instead."
_READABLE = f"GGUF files are read of the architectures {', '.join(ARCHITECTURES)}. {_ORIGINAL}"
_TOKENIZER = "Convert the original safetensors checkpoint with its tokenizer.json instead."

_TEMPLATE = "tokenizer.chat_template"


class GgufSource:
    """One GGUF file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.name = file.name
        self.opened = GgufFile(file)
        self.metadata = Metadata(self.opened)
        self._refuse_part()
        self.architecture = ARCHITECTURES.get(self.metadata.architecture)
        if self.architecture is None:
            raise ConversionError(
                f"{self.name}: its architecture is {self.metadata.architecture!r}.", _READABLE
            )
        self.metadata.refuse_unknown(
            self.architecture.reads | {self.architecture.epsilon_key}, self.architecture.only
        )
        described = Described(self.metadata, self.opened)
        self.config = config_of(described, self.architecture)
        self.divisors = described.factors()
        self.backbone = self._backbone()
        weights = GgufWeights(self.opened, described, self.architecture)
        self._weights = UnpackedWeights(weights, weights.entries, self.backbone, self.name)
        self.entries = self._weights.entries
        kinds = sorted({tensor.kind.name for tensor in self.opened.tensors.values()})
        self.provenance = {
            "kind": "gguf",
            "name": self.name,
            "weights": f"{self.name} ({', '.join(kinds)})",
            "sha256": sha256_of([file]),
        }
        for key, field in (("licence", "general.license"), ("model", "general.name")):
            if value := self.metadata.value(field, ""):
                self.provenance[key] = str(value)[:1000]

    def _refuse_part(self) -> None:
        parts, number = (self.metadata.value(key, 0) for key in ("split.count", "split.no"))
        for key, value in (("split.count", parts), ("split.no", number)):
            if not is_whole(value, 0, 1 << 16):
                raise self.metadata.odd(key, value, "an integer from 0 on")
        if parts > 1:
            raise ConversionError(
                f"{self.name} is part {number + 1} of {parts} of a model.",
                "Join the parts with llama.cpp (llama-gguf-split --merge) and name the whole file.",
            )

    def _backbone(self) -> dict[str, Any]:
        """The fields of ``AllMemConfig``, on the path of the decoder's family."""
        if self.config.model_type not in FAMILIES:
            with named_failure(f"{self.name}: transformers' own code cannot run it", _ORIGINAL):
                try:
                    return generic_options(self.config)
                except Unsupported as error:
                    raise unknown_family(self.config.to_dict(), self.name, [str(error)]) from None
        backbone = backbone_options(self.config, self.name)
        if self.divisors is not None:
            rope = {**backbone["rope_parameters"], "rope_type": FACTORS, FACTORS: self.divisors}
            backbone["rope_parameters"] = rope
        return backbone

    def tensor(self, name: str) -> Tensor:
        """A weight by the name transformers gives it, dequantized."""
        return self._weights.tensor(name)

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` of a weight, dequantized."""
        return self._weights.rows(name, first, end)

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """See ``Source``."""
        return self._weights.factors(name, first, end)

    def pretrained(self) -> Pretrained:
        """See ``Source``."""
        return pretrained_of(self.opened, self.metadata.architecture, self.config, self.divisors)

    def compare_texts(self, out: Path) -> str | None:
        """See ``Source``."""
        return compare_tokenizers(self.file, self.metadata, out)

    def write_texts(self, out: Path) -> None:
        """Build tokenizer and chat template from the metadata; end tokens as generation settings.

        Raises:
            ConversionError: the text is split by rules that are not known here, or the tokenizer
                takes too much time or memory.
        """
        write_tokenizer(self.metadata, self.backbone["vocab_size"], out)
        self._write_template(out)
        named = {k: v for k, v in special_tokens(self.metadata).items() if v is not None}
        (out / "generation_config.json").write_text(
            json.dumps(named, indent=2, sort_keys=True) + "\n",
            encoding="utf-8",
        )

    def _write_template(self, out: Path) -> None:
        template = self.metadata.text(_TEMPLATE, "")
        named = [key for key in self.opened.fields if key.startswith(f"{_TEMPLATE}.")]
        if template:
            (out / "chat_template.jinja").write_text(template, encoding="utf-8")
        elif named:
            raise ConversionError(
                f"{self.name}: none of its chat templates ({', '.join(sorted(named))}) is the one "
                f"for chats ({_TEMPLATE}).",
                _TOKENIZER,
            )
