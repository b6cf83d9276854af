"""AllMemConfig accepts what it documents and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from allmem_exporters import AllMemConfig, ConfigError
from allmem_exporters.model.config import default_memory_width
from allmem_ops.schema import SLIDING_WINDOW_ATTENTION, TTT_MEMORY


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"window": 0}, id="window"),
        pytest.param({"window": 3.0}, id="window as a float"),
        pytest.param({"window": True}, id="window as a truth value"),
        pytest.param({"sinks": -1}, id="sinks"),
        pytest.param({"chunk": "512"}, id="chunk as text"),
        pytest.param({"conv_kernel": 65}, id="conv_kernel"),
        pytest.param({"mem_width": 100}, id="mem_width"),
        pytest.param({"mem_heads": 0}, id="mem_heads"),
        pytest.param({"mem_hidden_mult": float("nan")}, id="mem_hidden_mult"),
        pytest.param({"mem_residual": 1}, id="mem_residual"),
        pytest.param({"inner_loss": "mse"}, id="inner_loss"),
        pytest.param({"norm_schedule": "after"}, id="norm_schedule"),
        pytest.param({"grad_at": "old"}, id="grad_at"),
        pytest.param({"lr_groups": "3"}, id="lr_groups"),
        pytest.param({"lr_reduce": "max"}, id="lr_reduce"),
        pytest.param({"lr_init": 0.0}, id="lr_init"),
        pytest.param({"theta_rel": -0.1}, id="theta_rel"),
        pytest.param({"conv_act": "relu"}, id="conv_act"),
        pytest.param({"qk_norm": "none"}, id="qk_norm"),
        pytest.param({"v_norm": "layer"}, id="v_norm"),
        pytest.param({"out_gate": "tanh"}, id="out_gate"),
        pytest.param({"sink_rope": "far"}, id="sink_rope"),
        pytest.param({"cache_dtype": "int4"}, id="cache_dtype"),
        pytest.param({"backbone": "bloom"}, id="backbone"),
        pytest.param({"hidden_act": "tanh"}, id="hidden_act"),
        pytest.param({"num_attention_heads": 10, "num_key_value_heads": 3},
                     id="num_attention_heads"),
        pytest.param({"backbone": "qwen2", "attention_bias": True}, id="attention_bias"),
        pytest.param({"backbone": "qwen3", "mlp_bias": True}, id="mlp_bias"),
        pytest.param({"embedding_scale": 0.0}, id="embedding_scale"),
        pytest.param({"attention_scale": float("inf")}, id="attention_scale"),
        pytest.param({"residual_scale": -0.2}, id="residual_scale"),
        pytest.param({"logits_scale": 0.0}, id="logits_scale"),
        pytest.param({"unrotated_layers": [30]}, id="unrotated_layers"),
        pytest.param({"trained_window": 0}, id="trained_window"),
        pytest.param({"trained_window": 512, "window": 513}, id="window beyond the trained one"),
    ],
)  # fmt: skip
def test_value_out_of_range_is_refused_by_name(
    options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    key = request.node.callspec.id.split()[0]
    with pytest.raises(ConfigError) as caught:
        AllMemConfig(**options)
    assert key in str(caught.value) and str(options[key]) in str(caught.value)


def test_chunk_longer_than_the_window_is_refused_because_tokens_would_be_lost() -> None:
    with pytest.raises(ConfigError, match="chunk is 256; it must be at most window, 128"):
        AllMemConfig(window=128, chunk=256)


@pytest.mark.parametrize(
    ("key", "meant"),
    [("sink", "sinks"), ("windoww", "window"), ("mem_widht", "mem_width"), ("chunk_size", None),
     ("mem_depth", None), ("hidden_sizes", "hidden_size"), ("theta", None)],
)  # fmt: skip
def test_misspelt_option_is_refused(key: str, meant: str | None) -> None:
    if key == "theta":  # not of our spelling: transformers keeps such keys, and so do we
        assert AllMemConfig(theta=3).theta == 3
        return
    with pytest.raises(ConfigError, match=f"'{key}'") as caught:
        AllMemConfig(**{key: 7})
    if meant:
        assert f"did you mean '{meant}'" in str(caught.value)


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "proportional"])
def test_rope_that_depends_on_the_length_is_refused(kind: str) -> None:
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0, "short_factor": [1.0] * 32,
            "long_factor": [1.0] * 32, "original_max_position_embeddings": 64}  # fmt: skip
    with pytest.raises(ConfigError, match=kind):
        AllMemConfig(rope_parameters=rope)


def test_rope_parameters_of_the_caller_stay_as_they_are() -> None:
    rope = {"rope_type": "default"}
    AllMemConfig(rope_parameters=rope)
    assert rope == {"rope_type": "default"}


def test_layers_without_rope_do_not_go_with_yarn() -> None:
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(ConfigError, match="unrotated_layers do not go with"):
        AllMemConfig(rope_parameters=rope, unrotated_layers=[1])


@pytest.mark.parametrize(
    ("heads", "width"), [(8, 512), (4, 512), (2, 512), (3, 192), (1, 64), (5, 320), (32, 2048)]
)
def test_memory_is_512_wide_where_that_gives_sane_heads(heads: int, width: int) -> None:
    assert default_memory_width(heads) == width


def test_sizes_follow_from_the_decoder() -> None:
    config = AllMemConfig(num_attention_heads=9, num_key_value_heads=3, hidden_size=576)
    assert (config.head_dim, config.mem_heads, config.mem_width) == (64, 3, 192)
    assert (config.mem_head_dim, config.mem_hidden) == (64, 128)


@pytest.mark.parametrize("backbone", ["llama", "qwen2", "qwen3"])
def test_operator_attributes_are_accepted_by_the_operator_table(backbone: str) -> None:
    config = AllMemConfig(backbone=backbone, theta_rel=0, mem_residual=False)
    attention = SLIDING_WINDOW_ATTENTION.attribute_values(config.attention_attributes(0, 1.0))
    assert (attention["norm_epsilon"] > 0) == (backbone == "qwen3")
    assert TTT_MEMORY.attribute_values(config.memory_attributes())["residual"] == 0


def test_saved_configuration_is_read_back_by_the_registry(tmp_path: Path) -> None:
    config = AllMemConfig(window=32, chunk=16, sinks=2, v_norm="rms", mem_hidden_mult=1.5)
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(again, AllMemConfig)
    assert again.to_diff_dict() == config.to_diff_dict()


def test_saved_configuration_with_a_bad_value_is_refused(tmp_path: Path) -> None:
    AllMemConfig(window=32, chunk=16).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chunk": 64}))
    with pytest.raises(ConfigError, match="chunk is 64"):
        AutoConfig.from_pretrained(tmp_path)
