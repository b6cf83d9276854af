"""What rows are chosen by: the model's surprise, and a score fitted to what answers look at."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from test_windows_rings import small

from allmem_exporters.errors import DataError
from allmem_exporters.finetune.attention import Heads, Rotary
from allmem_exporters.finetune.data.sequence import Sequence
from allmem_exporters.finetune.passes import LayerView, Passes
from benchmarks.windows import reading
from benchmarks.windows import scores as module
from benchmarks.windows.elements import Float16
from benchmarks.windows.reading import Reader
from benchmarks.windows.rings import Ring
from benchmarks.windows.scores import Learned, Scorer, received, smooth, surprise
from benchmarks.windows.ways import Choice, Way


def sequence(seed: int = 0) -> Sequence:
    ids = np.random.default_rng(seed).integers(0, 61, 60)
    return Sequence(ids, np.arange(60) >= 40, "needle")


def test_a_score_is_averaged_with_the_neighbors_that_are_there() -> None:
    found = smooth(torch.tensor([[10.0, 0, 0, 0, 0, 0, 5]]))
    assert found[0].tolist() == pytest.approx([10 / 3, 2.5, 2, 0, 1, 1.25, 5 / 3])


def test_surprise_is_what_the_token_before_said_of_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "smooth", lambda found: found)
    monkeypatch.setattr(module, "BLOCK", 7)
    passes = Passes(small())
    ids = torch.as_tensor(sequence().ids)[None]
    with torch.no_grad():
        hidden = passes.teacher(ids)
        found = surprise(passes, hidden, ids)(0, hidden)
        told = (hidden[0] @ passes.head.T).log_softmax(-1)
    assert found.shape == (2, 60)
    assert found[1, 0].item() == 0
    for token in (1, 7, 8, 59):
        wanted = -told[token - 1, ids[0, token]].item()
        assert found[1, token].item() == pytest.approx(wanted, rel=1e-5)


def test_what_a_token_receives_is_the_most_that_one_head_of_one_answer_gives_it_from_afar() -> None:
    passes = Passes(small())
    ids = torch.as_tensor(sequence().ids)[None]
    layer, view = next(passes.teacher_layers(ids))
    positions, nearest = torch.tensor([40, 59]), 16
    with torch.no_grad():
        found = received(layer.self_attn, view, positions, nearest)
        heads = cast(Heads, view.heads)
        query = Rotary(layer.self_attn, ids.device)(heads.query, torch.arange(60))
        scale = float(layer.self_attn.attributes["scale"])
        for head in range(2):
            most = torch.zeros(60)
            for group in (2 * head, 2 * head + 1):
                for now in (40, 59):
                    seen = query[0, group, now] @ heads.key[0, head, : now + 1].mT * scale
                    given = seen.softmax(-1)[: now - nearest + 1]
                    most[: len(given)] = torch.maximum(most[: len(given)], given)
            assert torch.allclose(found[head], most, atol=1e-6)
    assert (found[:, 44:] == 0).all()


def test_a_score_that_is_linear_in_what_the_layer_reads_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = Passes(small())
    truth = torch.randn(2, 32, generator=torch.Generator().manual_seed(5)) / 8

    def planted(attention: object, view: LayerView, *rest: object) -> torch.Tensor:
        # Sequences differ in their level, which no score should follow.
        return (view.x[0] @ truth.mT - 4 + view.x[0, -1, 0]).mT.exp()

    monkeypatch.setattr(module, "received", planted)
    monkeypatch.setattr(module, "RIDGE", 1e-9)
    monkeypatch.setattr(module, "smooth", lambda found: found)
    learned = Learned(passes, nearest=8, sinks=2)
    learned.learn([sequence(seed) for seed in range(4)])
    x = torch.randn(1, 20, 32, generator=torch.Generator().manual_seed(6))
    assert torch.allclose(learned.scorer()(1, x), (x[0] @ truth.mT).mT, atol=1e-2)


def test_without_a_question_beyond_the_window_nothing_can_be_learned() -> None:
    learned = Learned(Passes(small()), nearest=64, sinks=2)
    learned.learn([sequence()])
    with pytest.raises(DataError, match="window of 64 tokens"):
        learned.scorer()


def test_a_model_whose_rows_are_all_kept_reads_as_the_pretrained_one() -> None:
    passes = Passes(small())
    ids = torch.as_tensor(sequence().ids)[None]
    learned = Learned(passes, nearest=8, sinks=2)
    learned.learn([sequence(1)])
    reader = Reader(passes, 2, learned.scorer())
    with torch.no_grad():
        wanted = passes.teacher(ids)
        for score in ("surprise", "learned"):
            for slots, near in ((50, True), (5, False)):
                way = Way([[Ring(Float16(), 8, slots)] * 2] * 2, Choice(score, 0.5))
                far = (reader.read(ids, way) - wanted).norm() / wanted.norm()
                assert (far < 1e-5) == near


def test_surprise_is_of_the_text_and_the_rows_that_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, int]] = []

    def noted(passes: Passes, hidden: torch.Tensor, ids: torch.Tensor) -> Scorer:
        asked.append((int(ids[0, 0]), hidden.shape[1]))
        return surprise(passes, hidden, ids)

    monkeypatch.setattr(reading, "surprise", noted)
    reader = Reader(Passes(small()), 2)
    texts = [
        torch.as_tensor(sequence(seed).ids)[None, :length] for seed, length in ((0, 60), (1, 50))
    ]
    with torch.no_grad():
        for ids in texts:
            for latest, slots in ((8, 4), (4, 8), (8, 8)):
                ways = Way([[Ring(Float16(), latest, slots)] * 2] * 2, Choice("surprise", 0.5))
                reader.read(ids, ways)
    # Twelve rows are read once for both shares, sixteen anew, and each text by itself.
    wanted = [(int(ids[0, 0]), ids.shape[1]) for ids in texts for _ in range(2)]
    assert asked == wanted
