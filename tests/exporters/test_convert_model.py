"""Conversion in memory, and what the memory starts with."""

from __future__ import annotations

import math

import pytest
import torch
from decoders import decoder

from allmem_exporters import AllMemConfig, ConversionError
from allmem_exporters.convert.in_memory import convert_model
from allmem_exporters.model.initialize import can_warm_start, softplus_inverse

MEMORY = {"window": 32, "sinks": 4, "chunk": 16}


def test_converted_model_shares_the_decoders_weights() -> None:
    pretrained = decoder("llama tied")
    model = convert_model(pretrained, mem_width=16, **MEMORY)
    assert (
        model.model.layers[0].mlp.up_proj.weight.data_ptr()
        == pretrained.model.layers[0].mlp.up_proj.weight.data_ptr()
    )
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_configuration_that_contradicts_the_model_is_refused() -> None:
    with pytest.raises(ConversionError, match="backbone is 'qwen3', the model says 'llama'"):
        convert_model(decoder("llama tied"), AllMemConfig(backbone="qwen3"))


@torch.no_grad()
def test_memory_starts_silent_and_ready_to_learn() -> None:
    memory = convert_model(decoder("llama untied"), mem_width=16, **MEMORY).model.layers[1].allmem
    assert not memory.alpha.any()
    assert float(torch.nn.functional.softplus(memory.lr_proj.bias)[0]) == pytest.approx(1e-4)
    assert not memory.lr_proj.weight.any() and not memory.mom_proj.bias.any()
    for projection in (memory.mom_proj, memory.gate_proj, memory.o_proj):
        assert projection.weight.any()
    identity = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(16, 4)
    assert 0 < float((memory.v_conv.weight - identity).abs().max()) < 0.1
    # 2 heads of 16 x 8 numbers: the spread of a sample of 256 is known to about 5 %
    assert float(memory.fw_gate.std()) == pytest.approx(1.0, rel=0.2)
    assert float(memory.fw_up.std()) == pytest.approx(1.0, rel=0.2)
    assert float(memory.fw_down.std()) == pytest.approx(16**-0.5, rel=0.2)
    for gain in (memory.q_norm, memory.k_norm, memory.out_norm):
        assert torch.equal(gain.weight, torch.ones(2, 8))


@pytest.mark.parametrize("rate", [1e-8, 1e-4, 1e-2, 5.0])
def test_initial_rate_is_what_softplus_makes_of_the_bias(rate: float) -> None:
    assert math.log1p(math.exp(softplus_inverse(rate))) == pytest.approx(rate, rel=1e-6)


def test_memory_of_the_same_head_size_takes_the_attentions_projections() -> None:
    model = convert_model(decoder("qwen2"), mem_width=24, **MEMORY)  # heads of 12, as attention's
    memory, attention = model.model.layers[0].allmem, model.model.layers[0].self_attn
    assert torch.equal(memory.k_proj.weight, attention.k_proj.weight)
    assert torch.equal(memory.v_proj.weight, attention.v_proj.weight)
    query = attention.q_proj.weight.reshape(2, 2, 12, 48).mean(1).reshape(24, 48)
    assert torch.allclose(memory.q_proj.weight, query)
    back = attention.o_proj.weight.reshape(48, 2, 2, 12).sum(2).reshape(48, 24)
    assert torch.allclose(memory.o_proj.weight, back)


def test_narrower_memory_keeps_the_strongest_directions() -> None:
    model = convert_model(decoder("qwen3 tied"), mem_width=16, **MEMORY)  # heads of 8 from 16
    memory, attention = model.model.layers[0].allmem, model.model.layers[0].self_attn
    key = attention.k_proj.weight.reshape(2, 16, 48) * attention.k_norm.weight[:, None]
    kept = memory.k_proj.weight.reshape(2, 8, 48)
    for head in range(2):
        strongest = torch.linalg.svdvals(key[head].detach())[:8]
        # float32 singular values of a 16 x 48 matrix
        assert torch.allclose(torch.linalg.svdvals(kept[head].detach()), strongest, rtol=1e-4)


@pytest.mark.parametrize(
    "options", [{"mem_heads": 4, "mem_width": 16}, {"mem_width": 64}], ids=["heads", "width"]
)
@torch.no_grad()
def test_memory_of_other_head_sizes_starts_at_random(options: dict[str, int]) -> None:
    memory = convert_model(decoder("llama untied"), **options, **MEMORY).model.layers[0].allmem
    assert not can_warm_start(memory)
    assert float(memory.k_proj.weight.std()) == pytest.approx(0.02, rel=0.15)
