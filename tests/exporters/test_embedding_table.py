"""The runtime reads rows of the embedding from the files that exports write."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_config, tiny_model, write_tiny_checkpoint

from allmem_exporters.onnx.export import export
from allmem_runtime.files.embedding_table import EmbeddingTable
from allmem_runtime.files.onnx_external import Extent
from allmem_runtime.files.package import open_package

TOKENS = np.array([0, 1, 15, 16, 17, 200, 318, 319, 17])
SIZES = {"hidden_size": 64, "vocab_size": 327}

pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("weights", "error"), [("float32", 0.0), ("float16", 1e-3), ("int8", 2e-2), ("int4", 2e-2)]
)
def test_rows_are_those_of_the_model(
    tmp_path: Path, weights: str, error: float, tied: bool
) -> None:
    config = tiny_config(**SIZES, tie_word_embeddings=tied)
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", config)
    export(checkpoint, tmp_path / "model", weights=weights, check=False)
    table = EmbeddingTable.of(open_package(tmp_path / "model"))
    assert table is not None and table.vocabulary == config.vocab_size
    true = tiny_model(config).model.embed_tokens.weight.detach().numpy()
    for width in (32, 64):
        found = table.rows(TOKENS, width)
        assert found.shape == (len(TOKENS), width) and found.dtype == np.float32
        wrong = np.abs(found - true[TOKENS, :width]).max()
        assert wrong <= error * np.abs(true).max()


def test_an_embedding_that_cannot_be_read_row_by_row_is_left_alone(tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", tiny_config())
    export(checkpoint, tmp_path / "model", weights="int8", matmul_kernel="onnxruntime", check=False)
    assert EmbeddingTable.of(open_package(tmp_path / "model")) is None


def test_a_graph_whose_embedding_is_empty_has_none(tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", tiny_config())
    export(checkpoint, tmp_path / "model", check=False)
    package = open_package(tmp_path / "model")
    (tmp_path / "model" / "empty").touch()
    scan = dataclasses.replace(package.scan, embedding={"embedding": Extent("empty", 0, 0)})
    assert EmbeddingTable.of(dataclasses.replace(package, scan=scan)) is None
