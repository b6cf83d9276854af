"""What training needs: gradients everywhere, a loss, saved weights, the published sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_modeling_streaming import IDS, model
from transformers import AutoModelForCausalLM

from allmem_exporters import AllMemConfig, AllMemForCausalLM, ConfigError


def memory_parameters(reader: AllMemForCausalLM) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in reader.named_parameters() if ".allmem." in name}


def test_at_first_only_alpha_learns() -> None:
    reader = model()
    for layer in reader.model.layers:
        torch.nn.init.zeros_(layer.allmem.alpha)
    reader(IDS, labels=IDS).loss.backward()
    moved = {name for name, p in memory_parameters(reader).items() if p.grad.abs().max() > 0}
    assert moved == {f"model.layers.{i}.allmem.alpha" for i in (0, 1)}


@pytest.mark.parametrize(
    "options",
    [{}, {"inner_loss": "l2", "lr_groups": "per_head"}, {"lr_groups": "shared", "theta_rel": 0}],
    ids=["published", "l2", "no clip"],
)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
def test_every_memory_parameter_learns_once_alpha_is_heard(
    options: dict[str, object], checkpointing: bool
) -> None:
    reader = model(**options)
    if checkpointing:
        reader.activation_checkpointing_enable()
        reader.train()
    loss = reader(IDS, labels=IDS).loss
    loss.backward()
    still = [name for name, p in memory_parameters(reader).items() if not p.grad.abs().max() > 0]
    assert still == []


def test_checkpointing_changes_no_gradient() -> None:
    plain, saving = model(), model()
    saving.activation_checkpointing_enable()
    saving.train()
    for reader in (plain, saving):
        reader(IDS, labels=IDS).loss.backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-9, atol=1e-14), name


@pytest.mark.parametrize("name", ["alpha", "fw_gate", "fw_down", "lr_proj.bias", "q_conv.weight"])
def test_gradient_is_the_slope_of_the_loss(name: str) -> None:
    reader = model()
    parameter = reader.model.layers[0].allmem.get_parameter(name)
    reader(IDS, labels=IDS).loss.backward()
    direction = torch.randn_like(parameter)
    step = 1e-5

    def loss_at(distance: float) -> float:
        with torch.no_grad():
            parameter.add_(distance * direction)
            loss = float(reader(IDS, labels=IDS).loss)
            parameter.sub_(distance * direction)
        return loss

    slope = (loss_at(step) - loss_at(-step)) / (2 * step)
    # central difference in float64: error of order step^2 plus 1e-16 / step
    assert float((parameter.grad * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-9)


def test_loss_compares_each_token_with_the_next_and_skips_masked_labels() -> None:
    reader = model()
    labels = IDS.clone()
    labels[:, :40] = -100
    with torch.no_grad():
        output = reader(IDS, labels=labels)
        rows = output.logits[:, 39:-1].log_softmax(-1)
        wanted = -rows.gather(-1, IDS[:, 40:, None]).mean()
    assert float(output.loss) == pytest.approx(float(wanted), rel=1e-12)


@pytest.mark.parametrize("tied", [True, False])
def test_saved_model_is_loaded_bit_for_bit(tmp_path: Path, tied: bool) -> None:
    reader = model(torch.float32, tie_word_embeddings=tied)
    reader.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(again, AllMemForCausalLM)
    assert again.config.window == 20
    for (name, wanted), found in zip(
        reader.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(found, wanted), name
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, reader(IDS).logits)


def test_option_given_while_loading_is_checked(tmp_path: Path) -> None:
    model(torch.float32).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="chunk is 64"):
        AutoModelForCausalLM.from_pretrained(tmp_path, chunk=64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@torch.no_grad()
def test_half_precision_model_keeps_its_memory_in_float32(dtype: torch.dtype) -> None:
    reader = model(dtype)
    output = reader(IDS)
    assert output.logits.dtype == dtype and bool(output.logits.isfinite().all())
    assert output.state.layers[0].weights.dtype == torch.float32


@pytest.mark.parametrize(
    ("hidden", "inner", "published"),
    [(1024, 3072, 65_616_992), (2048, 6144, 125_512_800)],
    ids=["Qwen3-0.6B", "Qwen3-1.7B"],
)
def test_memory_has_the_published_size(hidden: int, inner: int, published: int) -> None:
    config = AllMemConfig(
        backbone="qwen3", vocab_size=151936, hidden_size=hidden, intermediate_size=inner,
        num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
    )  # fmt: skip
    with torch.device("meta"):
        reader = AllMemForCausalLM(config)
    assert sum(p.numel() for p in memory_parameters(reader).values()) == published


def test_memory_of_a_135m_decoder_is_a_tenth_of_it() -> None:
    with torch.device("meta"):
        reader = AllMemForCausalLM(AllMemConfig(num_key_value_heads=3))
    assert sum(p.numel() for p in memory_parameters(reader).values()) == 15_846_210
