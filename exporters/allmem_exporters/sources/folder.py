"""A pretrained model in a folder as transformers writes it: config.json, safetensors, tokenizer."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor
from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from allmem_exporters.errors import ConversionError, first_line
from allmem_exporters.generic.config import check_decoder_sizes
from allmem_exporters.generic.interface import Unsupported
from allmem_exporters.generic.options import generic_options
from allmem_exporters.generic.renaming import names_today
from allmem_exporters.local_files import file_in, json_in, refuse_code, weight_files
from allmem_exporters.model.checkpoint import GENERIC_TYPE
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.families import FAMILIES
from allmem_exporters.sources.decoder import (
    SUPPORTED,
    backbone_options,
    refuse_unlike_others,
    sha256_of,
    unknown_family,
)
from allmem_exporters.sources.folder_texts import SETTINGS, add_tokens, copy_texts, write_template
from allmem_exporters.sources.packed_weights import UnpackedWeights
from allmem_exporters.sources.pretrained import Pretrained
from allmem_exporters.sources.unknown_family import PARTS, parts_missing
from allmem_exporters.tensor_reader import Entry, TensorFile
from allmem_exporters.tokenizer_conversion import convert_tokenizer
from allmem_exporters.tokenizer_file import named_failure
from allmem_exporters.tokenizer_works import Conversion

_LABELS = ("num_labels", "id2label", "label2id", "problem_type")
_MOST_OF_A_CARD = 1 << 20  # characters; what matters stands at its beginning
_LICENSE = re.compile(r"^license:\s*[\"']?([\w.+-]+)", re.MULTILINE)


class _Files:
    """Weights by the names that they have in files, or by those of today."""

    def __init__(self, files: list[TensorFile]) -> None:
        self._places = {name: (file, name) for file in files for name in file.entries}

    def rename(self, names: dict[str, str]) -> None:
        """Give each weight another name."""
        self._places = {names[name]: place for name, place in self._places.items()}

    @property
    def entries(self) -> dict[str, Entry]:
        return {name: file.entries[own] for name, (file, own) in self._places.items()}

    def tensor(self, name: str) -> Tensor:
        file, own = self._places[name]
        return file.tensor(own)

    def rows(self, name: str, first: int, end: int) -> Tensor:
        file, own = self._places[name]
        return file.rows(own, first, end)

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        return None


class FolderSource:
    """A folder, be it the user's own or a snapshot of the hub."""

    def __init__(self, folder: Path, kind: str, name: str, revision: str | None = None) -> None:
        self.folder = folder
        self.name = name
        settings = self._json("config.json")
        if settings.get("model_type") in (AllMemConfig.model_type, GENERIC_TYPE):
            raise ConversionError(f"{name} is an AllMem model already;", "export it as it is.")
        refuse_code(settings, folder / "config.json")
        self.config = self._config(settings)
        family = FAMILIES.get(self.config.model_type)
        if family is None:
            refuse_unlike_others(self.config, name)
            with self._followed(settings):
                self.backbone = generic_options(self.config)
        else:
            self.backbone = backbone_options(self.config, name)
        self.shards = weight_files(folder)
        self._files = _Files([TensorFile(shard) for shard in self.shards])
        if family is None:
            with self._followed(settings):
                self._files.rename(names_today(self.config, self._files.entries))
        self._weights = UnpackedWeights(
            self._files,
            self._files.entries,
            self.backbone,
            name,
        )
        self.entries = self._weights.entries
        self.provenance = {
            "kind": kind,
            "name": name,
            "weights": ", ".join(shard.name for shard in self.shards)[:1000],
            "sha256": sha256_of(self.shards),
        }
        if revision:
            self.provenance["revision"] = revision
        if license := self._license():
            self.provenance["licence"] = license

    def _config(self, settings: dict[str, Any]) -> PretrainedConfig:
        """The configuration by its family's own class; what names classes of labels is left out."""
        kept = {key: value for key, value in settings.items() if key not in _LABELS}
        kind = kept.pop("model_type", None)
        if isinstance(kind, str) and kind not in FAMILIES:
            missing = parts_missing(settings)
            if not missing and kind in CONFIG_MAPPING and CONFIG_MAPPING[kind].sub_configs:
                missing = [PARTS]
            if missing or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
                raise unknown_family(settings, self.name, missing)
        try:
            if not isinstance(kind, str):
                raise ValueError(f"its model_type is {kind!r}")
            check_decoder_sizes(kept, CONFIG_MAPPING[kind])
            return CONFIG_MAPPING[kind](**kept)
        except Exception as error:  # noqa: BLE001 (each class checks in its own way)
            raise ConversionError(
                f"{self.name}: config.json cannot be read ({first_line(error)}).", SUPPORTED
            ) from error

    @contextmanager
    def _followed(self, settings: dict[str, Any]) -> Iterator[None]:
        """Name what no code of ours could follow in transformers' own."""
        with named_failure(f"{self.name}: transformers' own code cannot run it", SUPPORTED):
            try:
                yield
            except Unsupported as error:
                raise unknown_family(settings, self.name, [str(error)]) from None

    def _json(self, file: str) -> dict[str, Any]:
        values = json_in(self.folder, file)
        if values is None:
            raise ConversionError(
                f"{self.name}: there is no {file}.",
                "Give a folder in transformers' layout (config.json, *.safetensors, "
                "tokenizer.json), or a GGUF file by its own path.",
            )
        return values

    def _license(self) -> str | None:
        card = file_in(self.folder, "README.md")
        if card is None:
            return None
        with card.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_MOST_OF_A_CARD)
        front = text.split("---", 2)[1] if text.startswith("---") else ""
        found = _LICENSE.search(front)
        return found[1] if found else None

    def tensor(self, name: str) -> Tensor:
        """A weight by its name."""
        return self._weights.tensor(name)

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """Rows ``first`` to ``end - 1`` of a weight."""
        return self._weights.rows(name, first, end)

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """See ``Source``."""
        return None

    def pretrained(self) -> Pretrained:
        """See ``Source``."""
        return Pretrained(self.config, self._files)

    def compare_texts(self, out: Path) -> str | None:
        """See ``Source``; the tokenizer is the source's own file."""
        return None

    def write_texts(self, out: Path) -> None:
        """Copy tokenizer, chat template and generation settings as they are.

        Only where there is no tokenizer.json, transformers is asked to make one.
        """
        settings = json_in(self.folder, SETTINGS)
        refuse_code(settings or {}, self.folder / SETTINGS)
        if file_in(self.folder, "tokenizer.json"):
            for name in ("tokenizer.json", SETTINGS, "special_tokens_map.json",
                         "chat_template.jinja"):  # fmt: skip
                self._copy(name, out)
            add_tokens(self.folder, out, self.name, self.backbone["vocab_size"])
        else:
            self._convert_tokenizer(out)
        write_template(out, self.name)
        self._copy("generation_config.json", out)

    def _copy(self, name: str, out: Path) -> None:
        """Copy a file if it is there; a link out of the folder is refused."""
        path = file_in(self.folder, name)
        if path is not None:
            shutil.copyfile(path, out / name)

    def _convert_tokenizer(self, out: Path) -> None:
        with TemporaryDirectory(prefix="allmem-") as copied:
            copy_texts(self.folder, Path(copied))
            convert_tokenizer(
                Conversion(copied, str(out.absolute())),
                f"{self.name}: there is no tokenizer.json, and none could be made",
                "Add the model's tokenizer.json to the folder.",
            )
        if not (out / "tokenizer.json").is_file():
            raise ConversionError(
                f"{self.name}: its tokenizer has no tokenizer.json form.",
                "Add a tokenizer.json to the folder.",
            )
