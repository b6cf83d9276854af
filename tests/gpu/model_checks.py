"""What is asked of a whole model on a device, as plain functions of a model folder and a device.

The same functions run on the CPU in ``test_model_rehearsal.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from cases import relative_rms
from session_tools import assert_same

from allmem_runtime import Model, Session, load

LOGIT_TOLERANCE = {"float32": 1e-3, "float16": 3e-2}
"""Float32 products in another order on either side, some layers deep, and keys rounded to float16
to either neighbor. With float16 activations every layer rounds by up to 5e-4 on both sides, and
the residual stream passes all of it on."""


def write_tiny(folder: Path, activations: str) -> Path:
    """A tiny exported model; needs the exporter, which no other function here does."""
    from tiny import tiny_config, write_tiny_checkpoint

    from allmem_exporters.onnx.export import export

    checkpoint = write_tiny_checkpoint(folder.parent / "checkpoint", tiny_config())
    export(checkpoint, folder, activations=activations, check=False)
    return folder


def ids_of(model: Model, count: int, seed: int = 0) -> list[int]:
    """Random tokens of the model."""
    top = model.manifest.backbone.vocab_size
    return np.random.default_rng(seed).integers(0, top, count).tolist()


def on_cpu(folder: Path) -> dict[str, str]:
    """How the CPU runs a model: its kernels are for float32, the bodies for every type."""
    activations = json.loads((folder / "allmem.json").read_text()).get("activations", "float32")
    operators = "auto" if activations == "float32" else "portable"
    return {"device": "cpu", "operators": operators}


def check_logits(folder: Path, device: str, against: Mapping[str, object]) -> None:
    """Logits of a text in pieces and of single tokens, on the device against another way."""
    model, other = load(folder, device=device), load(folder, **against)
    ids = ids_of(model, 3 * model.manifest.chunk + 5)
    bound = LOGIT_TOLERANCE[model.manifest.activations]
    sessions = model.session(undo=False), other.session(undo=False)
    got, want = (np.concatenate(list(s.logits_all(ids))) for s in sessions)
    assert relative_rms(got, want) <= bound
    for token in ids_of(model, 8, seed=1):
        got, want = (s.feed([token], logits="last") for s in sessions)
        assert relative_rms(got, want) <= bound


def greedy(session: Session, first: int, count: int) -> list[int]:
    """The likeliest next token, over and over."""
    made = [first]
    for _ in range(count):
        row = session.feed([made[-1]], logits="last")
        assert row is not None and np.isfinite(row).all()
        made.append(int(row.argmax()))
    return made


def check_decode_is_the_same(first: Model, second: Model, steps: int) -> None:
    """Greedy decoding of two models over chunk ends and the ring's border, to the token and bit."""
    ids = ids_of(first, first.manifest.chunk + 3)
    sessions = [model.session(undo=False) for model in (first, second)]
    for session in sessions:
        session.feed(ids)
    made = [greedy(session, ids[0], steps) for session in sessions]
    assert made[0] == made[1]
    assert_same(*sessions)


def check_state_survives(folder: Path, device: str, file: Path) -> None:
    """Saved and opened, forked, undone: every way goes on as the uninterrupted session does."""
    model = load(folder, device=device)
    ids = ids_of(model, 2 * model.manifest.chunk + 7)
    session = model.session()
    session.feed(ids)
    session.save(file)
    fork, opened = session.fork(), load(folder, device=device).open(file)
    untouched = session.fork()
    made = [greedy(s, ids[0], 40) for s in (session, fork, opened)]
    assert all(a == b for a, b in pairwise(made))
    assert_same(session, fork)
    assert_same(session, opened)
    assert greedy(untouched, ids[0], 40) == made[0]  # what others did has not moved it


def check_no_node_elsewhere(folder: Path, device: str, provider: str) -> None:
    """All nodes on one provider, as ONNX Runtime recorded it."""
    placed = load(folder, device=device, operators="native").engine.providers()
    assert placed, "this version of ONNX Runtime does not record where nodes run"
    assert set(placed) == {provider}, placed
