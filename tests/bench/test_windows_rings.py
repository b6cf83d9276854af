"""Which rows a ring still has, and that attention finds these and no others."""

from __future__ import annotations

import pytest
import torch

from allmem_exporters.finetune.attention import Heads, project, windowed_attention
from allmem_exporters.finetune.passes import Passes
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.layers import WindowAttention
from allmem_exporters.model.modeling import AllMemForCausalLM
from benchmarks.windows import attention as module
from benchmarks.windows.attention import ring_attention
from benchmarks.windows.elements import Float16, Int4, Int8
from benchmarks.windows.rings import Ring, given_up

FOREVER = torch.iinfo(torch.int64).max
TIME = 90


def small() -> AllMemForCausalLM:
    torch.manual_seed(0)
    config = AllMemConfig(
        backbone="qwen3", vocab_size=61, hidden_size=32, intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        mem_width=16, window=20, sinks=3, chunk=8,
    )  # fmt: skip
    return AllMemForCausalLM(config).eval().float()


def read() -> tuple[WindowAttention, Heads]:
    passes = Passes(small())
    layer = passes.decoder.layers[0]
    ids = torch.randint(0, 61, (1, TIME), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return layer.self_attn, project(layer.self_attn, passes.read(layer, passes.embed(ids)))


def by_hand(
    attention: WindowAttention, heads: Heads, visible: torch.Tensor, window: int, sinks: int
) -> torch.Tensor:
    """With a mask [kv_heads, time, time] and keys as they are; sinks as the window has them."""
    rotary = module.Rotary(attention, heads.query.device)
    positions = torch.arange(TIME)
    turned = rotary(heads.query, positions)
    at_sinks = rotary(heads.query, positions.clamp(max=sinks + window - 1))
    keys, values = (part.repeat_interleave(2, 1) for part in (heads.key, heads.value))
    logits = turned @ keys.mT
    logits[..., :sinks] = (at_sinks @ keys.mT)[..., :sinks]
    logits = logits * float(attention.attributes["scale"])
    logits = logits.masked_fill(~visible.repeat_interleave(2, 0)[None], -torch.inf)
    mixed = logits.softmax(-1) @ values
    output: torch.Tensor = attention.o_proj(mixed.transpose(1, 2).flatten(2))
    return output


def far(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


def test_without_slots_a_row_goes_when_it_leaves_the_window() -> None:
    gone = given_up(Ring(Float16(), 4), 2, None, 7)
    assert gone.tolist() == [FOREVER, FOREVER, 6, 7, 8, 9, 10]


def test_the_rows_of_the_highest_scores_stay_until_better_ones_leave_the_window() -> None:
    scores = [9.0, 1.0, 5.0, 3.0, 4.0, 0.0, 6.0]
    gone = given_up(Ring(Float16(), 3, slots=2), 1, scores, 7)
    # Row 1 goes when row 3 leaves the window, at position 6; row 3 when row 4 does; and so on.
    assert gone.tolist() == [FOREVER, 6, FOREVER, 7, 9, 8, FOREVER]


def test_of_equal_scores_the_older_row_goes() -> None:
    gone = given_up(Ring(Float16(), 3, slots=1), 0, [1.0] * 5, 5)
    assert gone.tolist() == [4, 5, 6, 7, FOREVER]


def test_a_ring_never_holds_more_than_its_rows() -> None:
    scores = torch.rand(TIME, generator=torch.Generator().manual_seed(2)).tolist()
    ring, sinks = Ring(Float16(), 10, slots=7), 3
    gone = given_up(ring, sinks, scores, TIME)
    for now in range(TIME):
        held = (gone[sinks : now + 1] > now).sum().item()
        assert held == min(ring.rows, max(0, now + 1 - sinks))
        left = list(range(sinks, now - ring.latest + 1))
        best = sorted(left, key=lambda row: scores[row], reverse=True)[: ring.slots]
        assert set(best) == {row for row in left if gone[row] > now}


def test_what_is_chosen_costs_a_score_for_each_row() -> None:
    assert Ring(Float16(), 10, slots=6).bytes(4, 64) == 20 * 256 + 16 * 2
    assert Ring(Int8(), 16).bytes(4, 64) == 20 * 136


@pytest.mark.parametrize("block", [7, 256])
@pytest.mark.parametrize("sinks", [0, 3])
def test_each_head_sees_its_own_window(
    sinks: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUERY_BLOCK", block)
    attention, heads = read()
    attention.o_proj = torch.nn.Identity()
    windows = (6, 24)
    with torch.no_grad():
        rings = [Ring(Float16(), window) for window in windows]
        found = ring_attention(attention, heads, rings, sinks).unflatten(-1, (2, -1))
        for head, window in enumerate(windows):
            wanted = windowed_attention(attention, heads, window, sinks).unflatten(-1, (2, -1))
            assert far(found[..., head, :], wanted[..., head, :]) < 1e-5


def test_a_window_as_long_as_the_model_was_trained_for_sees_all() -> None:
    attention, heads = read()
    with torch.no_grad():
        found = ring_attention(attention, heads, [Ring(Float16(), TIME - 3)] * 2, 3)
        assert far(found, windowed_attention(attention, heads, TIME, 0)) < 1e-5


@pytest.mark.parametrize("block", [7, 256])
def test_attention_finds_the_chosen_rows_and_no_others(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUERY_BLOCK", block)
    attention, heads = read()
    sinks, ring = 3, Ring(Float16(), 8, slots=5)
    scores = torch.rand(2, TIME, generator=torch.Generator().manual_seed(3))
    visible = torch.zeros(2, TIME, TIME, dtype=torch.bool)
    for head in range(2):
        for now in range(TIME):
            left = torch.arange(sinks, max(sinks, now - ring.latest + 1))
            best = left[scores[head][left].topk(min(ring.slots, len(left))).indices]
            latest = torch.arange(max(0, now - ring.latest + 1), now + 1)
            for kept in (torch.arange(min(sinks, now + 1)), latest, best):
                visible[head, now, kept] = True
    with torch.no_grad():
        found = ring_attention(attention, heads, [ring, ring], sinks, scores)
        assert far(found, by_hand(attention, heads, visible, ring.rows, sinks)) < 1e-5


@pytest.mark.parametrize("block", [7, 256])
@pytest.mark.parametrize("recent", [8, 16])
def test_old_rows_are_found_as_int4_and_the_latest_as_int8(
    recent: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUERY_BLOCK", block)
    attention, heads = read()
    attention.o_proj = torch.nn.Identity()
    sinks, window, int4 = 3, 40, Int4(8, 8, recent)
    turn = module.Rotary(attention, heads.query.device)
    with torch.no_grad():
        found = ring_attention(attention, heads, [Ring(int4, window)] * 2, sinks)
        rows = int4.found(module.Rows(heads.key, heads.value), sinks, turn)
        for now in (2, 3, 10, 11, 42, 58, 59, 89):
            # Position 3 begins the first group; a group that has begun waits with those before.
            first = max(sinks, sinks + (now - sinks) // 8 * 8 + 8 - recent)
            old = (torch.arange(TIME) < first) & (torch.arange(TIME) >= sinks)
            mixed = Heads(
                heads.query,
                torch.where(old[:, None], rows.old.key, rows.young.key),
                torch.where(old[:, None], rows.old.value, rows.young.value),
            )
            wanted = windowed_attention(attention, mixed, window, sinks)[:, now]
            assert far(found[:, now], wanted) < 1e-5
