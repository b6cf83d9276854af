"""A converted model is its decoder within the window, and sinks and window beyond."""

from __future__ import annotations

import pytest
import torch
from decoders import DECODERS, decoder, masked_attention_logits, relative_rms
from transformers import PreTrainedModel

from allmem_exporters import AllMemForCausalLM
from allmem_exporters.convert.in_memory import convert_model

MEMORY = {"window": 40, "sinks": 5, "chunk": 16, "mem_width": 16, "cache_dtype": "float32"}


def converted(model: PreTrainedModel) -> AllMemForCausalLM:
    return convert_model(model, **MEMORY)


def tokens(time: int, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 97, (batch, time), generator=generator)


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_text_within_the_window_gives_the_decoders_logits(name: str) -> None:
    model = decoder(name)
    ids = tokens(40, batch=2)
    # float32: sums in another order, and transformers' angles are rounded to float32.
    assert relative_rms(converted(model)(ids).logits, model(ids).logits) < 1e-5


@pytest.mark.parametrize("name", ["llama untied", "qwen2 rope yarn", "qwen3 tied"])
@torch.no_grad()
def test_equality_is_closer_in_float64(name: str) -> None:
    model = decoder(name).double()
    ids = tokens(40)
    # Even in float64 transformers takes norms and angles in float32.
    assert relative_rms(converted(model)(ids).logits, model(ids).logits) < 5e-7


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_text_beyond_the_window_gives_dense_attention_over_sinks_and_window(name: str) -> None:
    model = decoder(name)
    ids = tokens(150)
    wanted = masked_attention_logits(model, ids, window=40, sinks=5)
    found = converted(model)(ids).logits
    # float32: sums in another order, and transformers' angles are rounded to float32.
    assert relative_rms(found, wanted) < 1e-5
    full = model(ids).logits
    assert relative_rms(found[:, :45], full[:, :45]) < 1e-5  # sinks are outside the window
    assert relative_rms(found, full) > 1e-2  # the comparison can fail


@torch.no_grad()
def test_half_precision_cache_costs_little() -> None:
    model = decoder("qwen3 tied")
    rounded = convert_model(model, **{**MEMORY, "cache_dtype": "float16"})
    ids = tokens(40)
    error = relative_rms(rounded(ids).logits, model(ids).logits)
    # Keys and values carry 11 bits, an error of 2^-12 each, and there are two layers of them.
    assert 1e-5 < error < 5e-3


@pytest.mark.parametrize("groups", ["per_head", "shared"])
@torch.no_grad()
def test_fewer_learning_rates_are_the_same_rate_for_several_matrices(groups: str) -> None:
    grouped = convert_model(decoder("qwen2"), lr_groups=groups, lr_init=0.05, **MEMORY).double()
    full = convert_model(decoder("qwen2"), lr_init=0.05, **MEMORY).double()
    for layer, wide in zip(grouped.model.layers, full.model.layers, strict=True):
        layer.allmem.alpha.normal_()
        rates = layer.allmem.lr_proj
        rates.weight.normal_(0.0, 0.2)
        state = layer.allmem.state_dict()
        copies = 6 // rates.out_features  # 2 heads: (gate, gate, up, up, down, down)
        state["lr_proj.weight"] = torch.cat([rates.weight] * copies)
        state["lr_proj.bias"] = torch.cat([rates.bias] * copies)
        wide.allmem.load_state_dict(state)
    ids = tokens(70)
    # float64, the same sums in the same order
    assert relative_rms(grouped(ids).logits, full(ids).logits) < 1e-14
