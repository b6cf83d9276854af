"""Gates open a head's reach band by band; what they are worth adds up to the divergence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from decoders import relative_rms
from test_modeling_streaming import IDS, model

from allmem_exporters.finetune.attention import (
    attention_by_head,
    full_attention,
    project,
    windowed_attention,
)
from allmem_exporters.finetune.data import Sequence
from allmem_exporters.finetune.passes import Passes
from allmem_exporters.heads import banded_attention as banded
from allmem_exporters.heads.attribution import Attributor, answer_positions

WINDOWS = [6, 12, 24, 200]


@pytest.mark.parametrize("block", [7, 512])
@pytest.mark.parametrize("sinks", [0, 3, 30])
def test_with_the_first_gates_open_a_head_sees_the_window_that_ends_there(
    sinks: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(banded, "QUERY_BLOCK", block)
    reader = model(torch.float32)
    passes = Passes(reader)
    layer = reader.model.layers[0]
    with torch.no_grad():
        x = passes.read(layer, passes.embed(IDS))
        heads = project(layer.self_attn, x)
        kv_heads = heads.key.shape[1]
        for opened in range(len(WINDOWS)):
            gates = (torch.arange(len(WINDOWS) - 1) < opened).float().expand(kv_heads, -1)
            got = banded.banded_attention(layer.self_attn, heads, WINDOWS, sinks, gates)
            wanted = windowed_attention(layer.self_attn, heads, WINDOWS[opened], sinks)
            assert relative_rms(got, wanted) < 1e-5
        if not sinks:
            assert relative_rms(got, full_attention(layer.self_attn, heads)) < 1e-5


def test_windows_by_head_are_what_gates_by_head_open() -> None:
    reader = model(torch.float32)
    passes, layer = Passes(reader), reader.model.layers[0]
    with torch.no_grad():
        heads = project(layer.self_attn, passes.read(layer, passes.embed(IDS)))
        kv_heads = heads.key.shape[1]
        opened = [head % len(WINDOWS) for head in range(kv_heads)]
        gates = (torch.arange(len(WINDOWS) - 1) < torch.tensor(opened)[:, None]).float()
        wanted = banded.banded_attention(layer.self_attn, heads, WINDOWS, 3, gates)
        windows = [WINDOWS[number] for number in opened]
        got = attention_by_head(layer.self_attn, heads, windows, 3)
    assert len(set(windows)) > 1
    assert relative_rms(got, wanted) < 1e-5


def test_a_gate_opens_its_own_head_alone() -> None:
    reader = model(torch.float32)
    passes, layer = Passes(reader), reader.model.layers[0]
    layer.self_attn.o_proj = torch.nn.Identity()
    with torch.no_grad():
        x = passes.read(layer, passes.embed(IDS))
        heads = project(layer.self_attn, x)
        kv_heads, group = heads.key.shape[1], heads.query.shape[1] // heads.key.shape[1]
        closed = torch.zeros(kv_heads, len(WINDOWS) - 1)
        opened = closed.clone()
        opened[1] = 1.0
        outputs = [
            banded.banded_attention(layer.self_attn, heads, WINDOWS, 3, gates)
            for gates in (closed, opened)
        ]
    changed = (outputs[0] != outputs[1]).unflatten(-1, (kv_heads * group, -1)).any(-1)
    assert changed.any(dim=(0, 1)).tolist() == [h // group == 1 for h in range(kv_heads * group)]


def sequence(length: int = 90) -> Sequence:
    ids = IDS[0, :length].numpy()
    return Sequence(ids, np.arange(length) >= 40, "copy", "train")


def test_what_bands_are_worth_adds_up_to_the_divergence() -> None:
    passes = Passes(model(torch.float32))
    for parameter in passes.model.parameters():
        parameter.requires_grad_(False)
    found = Attributor(passes, WINDOWS, 3, steps=24).attribute(sequence())
    assert found is not None and found.divergence > 1e-4
    total = torch.tensor(found.worth).sum().item()
    assert total == pytest.approx(found.divergence, rel=0.03)


def test_answers_are_those_that_lie_beyond_the_shortest_window_and_not_too_many() -> None:
    asked = sequence()
    assert answer_positions(asked, 10).tolist() == list(range(39, 89))
    assert answer_positions(asked, 80).tolist() == list(range(80, 89))
    many = Sequence(np.zeros(5000, np.int64), np.ones(5000, bool), "copy", "train")
    positions = answer_positions(many, 100)
    assert len(positions) == 128 and positions[0] == 100 and positions[-1] == 4998
    assert Attributor(Passes(model(torch.float32)), WINDOWS, 3).attribute(sequence(9)) is None
