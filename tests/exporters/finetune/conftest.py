"""A model to train and data to train it on; copy them before changing anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_config, tiny_model

from allmem_exporters.finetune.data import Sequence, ShardWriter


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as the converter leaves it: memories not heard yet."""
    model = tiny_model(tiny_config())
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.allmem.alpha)
    folder = tmp_path_factory.mktemp("finetune") / "checkpoint"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight sequences of 96 tokens whose second half repeats the first."""
    folder = tmp_path_factory.mktemp("finetune") / "data"
    generator = np.random.default_rng(0)
    with ShardWriter(folder, vocab_size=320, tokenizer="none") as writer:
        for number in range(8):
            ids = np.tile(generator.integers(3, 320, 48), 2).astype(np.int64)
            counts = np.arange(96) > 0
            kind, split = ("text", "copy")[number % 2], "heldout" if number > 5 else "train"
            writer.add(Sequence(ids, counts, kind, split))
    return folder
