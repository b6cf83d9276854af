"""The model is a function of tokens and state: no cut of the text changes what it says."""

from __future__ import annotations

import pytest
import torch
from decoders import relative_rms
from hypothesis import given, settings
from hypothesis import strategies as st

from allmem_exporters import AllMemConfig, AllMemForCausalLM, AllMemState
from allmem_exporters.model.modeling import pieces
from allmem_exporters.model.state import state_spec


def model(dtype: torch.dtype = torch.float64, **options: object) -> AllMemForCausalLM:
    """A small model whose memory is loud and learns fast."""
    torch.manual_seed(0)
    sizes: dict[str, object] = {
        "backbone": "qwen3", "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "mem_width": 16, "window": 20, "sinks": 3, "chunk": 8, "lr_init": 0.05,
        "cache_dtype": "float32",
    }  # fmt: skip
    result = AllMemForCausalLM(AllMemConfig(**{**sizes, **options})).eval().to(dtype)
    with torch.no_grad():
        for layer in result.model.layers:
            layer.allmem.alpha.normal_()
            layer.allmem.lr_proj.weight.normal_(0.0, 0.2)
    return result


IDS = torch.randint(0, 61, (2, 90), generator=torch.Generator().manual_seed(1))


def in_parts(
    reader: AllMemForCausalLM, lengths: list[int], ids: torch.Tensor = IDS
) -> tuple[torch.Tensor, AllMemState]:
    state, position, logits = None, 0, []
    for length in lengths:
        part = ids[:, position : position + length]
        output = reader(part, state, position)
        state, position = output.state, output.position
        logits.append(output.logits)
    assert position == ids.shape[1] and state is not None
    return torch.cat(logits, dim=1), state


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 89), max_size=12))
def test_any_cut_of_the_text_gives_the_same_logits_and_state(edges: list[int]) -> None:
    reader = model()
    marks = [0, *sorted(set(edges)), 90]
    lengths = [b - a for a, b in zip(marks, marks[1:], strict=False)]
    with torch.no_grad():
        whole = reader(IDS)
        logits, state = in_parts(reader, lengths)
    # float64: only the order of a few sums differs
    assert relative_rms(logits, whole.logits) < 1e-12
    for found, wanted in zip(state, whole.state, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("cache", ["float16", "float32"])
@torch.no_grad()
def test_cuts_do_not_matter_in_float32_either(cache: str) -> None:
    reader = model(torch.float32, cache_dtype=cache)
    whole = reader(IDS).logits
    logits, _ = in_parts(reader, [1] * 20 + [7, 13, 30, 20])
    # float32 sums in another order; a float16 cache may round a key to its neighbor (2^-11).
    assert relative_rms(logits, whole) < (1e-5 if cache == "float32" else 2e-3)


@torch.no_grad()
def test_memory_is_heard_and_forgotten_only_with_its_state() -> None:
    reader = model()
    whole = reader(IDS).logits
    first = reader(IDS[:, :48])
    fresh = AllMemState.blank(reader.config, 2, torch.float64)
    wiped = AllMemState(
        tuple(
            was._replace(weights=new.weights + layer.allmem.constants()[2], momentum=new.momentum)
            for was, new, layer in zip(
                first.state.layers, fresh.layers, reader.model.layers, strict=True
            )
        )
    )
    kept = reader(IDS[:, 48:], first.state, 48).logits
    lost = reader(IDS[:, 48:], wiped, 48).logits
    assert relative_rms(kept, whole[:, 48:]) < 1e-12  # float64, sums in another order
    assert relative_rms(lost, whole[:, 48:]) > 1e-3


@pytest.mark.parametrize(
    ("position", "length", "expected"),
    [
        (0, 8, [(0, 8)]),
        (0, 9, [(0, 8), (8, 9)]),
        (7, 2, [(0, 1), (1, 2)]),
        (8, 3, [(0, 3)]),
        (13, 20, [(0, 3), (3, 11), (11, 19), (19, 20)]),
    ],
)
def test_pieces_end_at_absolute_multiples_of_the_chunk(
    position: int, length: int, expected: list[tuple[int, int]]
) -> None:
    assert pieces(position, length, 8) == expected


def test_state_is_the_one_the_runtime_describes() -> None:
    reader = model(torch.float32, cache_dtype="float16")
    with torch.no_grad():
        after = reader(IDS[:1, :11]).state
    blank = AllMemState.blank(reader.config)
    for state in (blank, after):
        layers = list(state_spec(reader.config))
        for (_, tensor), found in zip(layers, state, strict=True):
            assert tuple(found.shape) == tensor.shape
            assert found.dtype == getattr(torch, tensor.element)
    assert all(not tensor.any() for tensor in blank)


def test_input_state_is_never_written_to() -> None:
    reader = model()
    with torch.no_grad():
        first = reader(IDS[:, :13])
        before = [tensor.clone() for tensor in first.state]
        reader(IDS[:, 13:], first.state, 13)
    assert all(torch.equal(a, b) for a, b in zip(before, first.state, strict=True))


def test_masked_tokens_are_refused() -> None:
    mask = torch.ones_like(IDS)
    with torch.no_grad():
        model()(IDS, attention_mask=mask)
    mask[0, 0] = 0
    with pytest.raises(ValueError, match="without padding"):
        model()(IDS, attention_mask=mask)


def test_position_without_a_state_is_refused() -> None:
    with pytest.raises(ValueError, match="position is 5 without a state"):
        model()(IDS, position=5)


def test_empty_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        model()(IDS[:, :0])
