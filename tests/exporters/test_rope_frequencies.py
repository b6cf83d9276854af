"""A converted model turns by the angles its decoder learned with."""

from __future__ import annotations

import math

import pytest
import torch
from decoders import DECODERS, decoder

from allmem_exporters import AllMemConfig
from allmem_exporters.model.rope import rotary_frequencies
from allmem_exporters.sources import backbone_options


@pytest.mark.parametrize("name", DECODERS)
def test_frequencies_are_bit_for_bit_those_of_transformers(name: str) -> None:
    model = decoder(name)
    options = backbone_options(model.config, name)
    config = AllMemConfig(**options, mem_width=16, window=64, chunk=16)
    rotary = model.model.rotary_emb
    for layer in filter(config.rotates, range(config.num_hidden_layers)):
        frequencies, amplitude = rotary_frequencies(config, layer)
        kind = f"{model.config.layer_types[layer]}_" if hasattr(rotary, "layer_types") else ""
        assert torch.equal(torch.tensor(frequencies), getattr(rotary, f"{kind}inv_freq"))
        assert amplitude == getattr(rotary, f"{kind}attention_scaling")


def test_frequencies_are_numbers_even_while_models_are_built_without_memory() -> None:
    config = AllMemConfig(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0})
    with torch.device("meta"):
        inside = rotary_frequencies(config, 0)
    assert inside == rotary_frequencies(config, 0)


def test_yarn_amplitude_is_the_published_one() -> None:
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
            "original_max_position_embeddings": 64}  # fmt: skip
    config = AllMemConfig(rope_parameters=rope, max_position_embeddings=256)
    assert rotary_frequencies(config, 0)[1] == pytest.approx(0.1 * math.log(4.0) + 1.0)


def test_partial_rotary_factor_leaves_coordinates_unturned() -> None:
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    config = AllMemConfig(head_dim=16, rope_parameters=rope)
    assert len(rotary_frequencies(config, 0)[0]) == 4
