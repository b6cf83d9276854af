"""What makes hundreds of tiny exports quick: one thread, one process, and what is read once."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from types import SimpleNamespace

import onnx_ir as ir
import pytest
import torch
from torch.onnx._internal.exporter import _registration

from allmem_exporters import tokenizer_conversion
from allmem_exporters.model.weights import LAST_NORM, ModelWeights, load_layer
from allmem_exporters.onnx import export as exporting
from allmem_exporters.onnx.trace import trace


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models compute faster on one thread than where several tests' threads share cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def translations_read_once() -> Iterator[None]:
    """Those of PyTorch's operators to ONNX, which are the same for every export of a process.

    Each would else parse the source of all of them, which is a fourth of a tiny model's export.
    """
    with pytest.MonkeyPatch.context() as patch:
        library = getattr(_registration, "onnxscript_apis", None)  # a private part of PyTorch
        if hasattr(library, "get_torchlib_ops"):
            kept = SimpleNamespace(get_torchlib_ops=functools.cache(library.get_torchlib_ops))
            patch.setattr(_registration, "onnxscript_apis", kept)
        yield


@pytest.fixture(autouse=True)
def tokenizers_are_converted_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of its own takes seconds to load transformers; it has tests of its own."""
    monkeypatch.setattr(tokenizer_conversion, "_apart", tokenizer_conversion._failure)


_traced: dict[bytes, ir.Model] = {}


@pytest.fixture
def traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One trace serves all exports of equal models, for tests of what is done with it later."""

    def kept(weights: ModelWeights, activations: str = "float32") -> ir.Model:
        known = hashlib.sha256(f"{weights.config.to_json_string()} {activations}".encode())
        layers = [load_layer(weights, at) for at in range(weights.config.num_hidden_layers)]
        values = [weights.tensor(LAST_NORM), *(p for one in layers for p in one.parameters())]
        for value in values:
            known.update(f"{value.dtype} {tuple(value.shape)}".encode())
            known.update(value.detach().contiguous().view(torch.uint8).numpy())
        key = known.digest()
        if key not in _traced:
            _traced[key] = trace(weights, activations)
        return _traced[key].clone()

    monkeypatch.setattr(exporting, "trace", kept)
