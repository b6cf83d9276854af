"""A pretrained model in a folder as transformers writes it: config.json, safetensors, tokenizer."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from allmem_exporters.errors import ConversionError
from allmem_exporters.sources.decoder import SUPPORTED, backbone_options, sha256_of

_INDEX = "model.safetensors.index.json"
_LICENSE = re.compile(r"^license:\s*[\"']?([\w.+-]+)", re.MULTILINE)


class FolderSource:
    """A folder, be it the user's own or a snapshot of the hub."""

    def __init__(self, folder: Path, kind: str, name: str, revision: str | None = None) -> None:
        self.folder = folder
        self.name = name
        settings = self._json("config.json")
        if settings.get("model_type") == "allmem":
            raise ConversionError(f"{name} is an AllMem model already;", "export it as it is.")
        if "auto_map" in settings:
            raise ConversionError(
                f"{name}: config.json asks for code of its own (auto_map), which is never run.",
                SUPPORTED,
            )
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
        except (ValueError, KeyError, TypeError) as error:
            raise ConversionError(
                f"{name}: config.json cannot be read ({str(error).strip().splitlines()[0]}).",
                SUPPORTED,
            ) from error
        self.backbone = backbone_options(config, name)
        self.shards = self._shards()
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

    def _json(self, file: str) -> dict[str, Any]:
        path = self.folder / file
        if not path.is_file():
            raise ConversionError(
                f"{self.name}: there is no {file}.",
                "Give a folder in transformers' layout (config.json, *.safetensors, "
                "tokenizer.json), or a GGUF file by its own path.",
            )
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConversionError(
                f"{self.name}: {file} is not JSON ({error}).", "Fetch an intact copy."
            ) from None
        if not isinstance(data, dict):
            raise ConversionError(f"{self.name}: {file} is no object.", "Fetch an intact copy.")
        return data

    def _shards(self) -> list[Path]:
        single = self.folder / "model.safetensors"
        if single.is_file():
            return [single]
        if (self.folder / _INDEX).is_file():
            names = sorted(set(self._json(_INDEX).get("weight_map", {}).values()))
            for name in names:
                if Path(name).name != name:
                    raise ConversionError(
                        f"{self.name}: {_INDEX} names {name!r}, which is no plain file name.",
                        "Fetch an intact copy.",
                    )
                if not (self.folder / name).is_file():
                    raise ConversionError(
                        f"{self.name}: the weights file {name} is missing.", "Fetch it too."
                    )
            if names:
                return [self.folder / name for name in names]
        raise ConversionError(
            f"{self.name}: there are no weights in safetensors form.",
            "Pickled weights (.bin, .pt) can run code and are not read; save the model again "
            "with transformers' save_pretrained.",
        )

    def _license(self) -> str | None:
        card = self.folder / "README.md"
        if not card.is_file():
            return None
        text = card.read_text(encoding="utf-8", errors="replace")
        front = text.split("---", 2)[1] if text.startswith("---") else ""
        found = _LICENSE.search(front)
        return found[1] if found else None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight; the file stays mapped, so a weight takes no memory before it is used."""
        for shard in self.shards:
            try:
                with safe_open(shard, framework="pt") as opened:
                    for name in opened.keys():  # noqa: SIM118 - not a mapping
                        yield name, opened.get_tensor(name)
            except SafetensorError as error:
                raise ConversionError(
                    f"{self.name}: {shard.name} is damaged ({error}).", "Fetch an intact copy."
                ) from error

    def write_texts(self, out: Path) -> None:
        """Copy tokenizer, chat template and generation settings as they are.

        Only where there is no tokenizer.json, transformers is asked to make one.
        """
        if (self.folder / "tokenizer.json").is_file():
            for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                         "chat_template.jinja"):  # fmt: skip
                if (self.folder / name).is_file():
                    shutil.copyfile(self.folder / name, out / name)
        else:
            self._convert_tokenizer(out)
        self._write_template(out)
        generation = self.folder / "generation_config.json"
        if generation.is_file():
            shutil.copyfile(generation, out / generation.name)

    def _convert_tokenizer(self, out: Path) -> None:
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, ImportError) as error:
            raise ConversionError(
                f"{self.name}: there is no tokenizer.json, and none could be made "
                f"({str(error).strip().splitlines()[0]}).",
                "Add the model's tokenizer.json to the folder.",
            ) from error
        tokenizer.save_pretrained(out)
        if not (out / "tokenizer.json").is_file():
            raise ConversionError(
                f"{self.name}: its tokenizer has no tokenizer.json form.",
                "Add a tokenizer.json to the folder.",
            )

    def _write_template(self, out: Path) -> None:
        # Older checkpoints keep the template in tokenizer_config.json; we keep it in one place.
        settings = out / "tokenizer_config.json"
        if (out / "chat_template.jinja").exists() or not settings.is_file():
            return
        template = json.loads(settings.read_text(encoding="utf-8")).get("chat_template")
        if isinstance(template, list):
            named = {entry.get("name"): entry.get("template") for entry in template}
            template = named.get("default")
        if isinstance(template, str):
            (out / "chat_template.jinja").write_text(template, encoding="utf-8")
