"""Exports without the memory's writing or voice, with another window, and trained memories."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import write_folder
from safetensors.torch import save_file
from tiny import tiny_config, write_tiny_checkpoint

from allmem_exporters import AllMemForCausalLM
from allmem_exporters.ablation.memory_ablation import restrain_layer
from allmem_exporters.convert.conversion import convert
from allmem_exporters.errors import ConfigError, ConversionError, ExportError
from allmem_exporters.model.adapter import Adapter, base_digest, save_adapter
from allmem_exporters.onnx.export import export
from allmem_runtime import load
from allmem_runtime.spec import DECODER_KEY

IDS = np.arange(3, 103) % 300
# Float16 keys and values would hide small differences.
EXACT = {"kv": "float32", "check": False}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("switch") / "checkpoint"
    return write_tiny_checkpoint(folder, tiny_config(lr_init=0.05, theta_rel=1.0))


def last_logits(folder: Path) -> np.ndarray:
    session = load(folder, device="cpu").session()
    return session.feed(IDS.tolist(), logits="last")


def pytorch(checkpoint: Path, memory: str, **changes: object) -> torch.Tensor:
    model = AllMemForCausalLM.from_pretrained(checkpoint, cache_dtype="float32", **changes).eval()
    for layer in model.model.layers:
        restrain_layer(layer, memory)
    with torch.no_grad():
        return model(torch.as_tensor(IDS)[None]).logits[0, -1]


def test_switches_change_what_the_model_says(checkpoint: Path) -> None:
    enabled, frozen, disabled = (pytorch(checkpoint, m) for m in ("enabled", "frozen", "disabled"))
    assert (enabled - frozen).abs().max() > 1e-2 and (frozen - disabled).abs().max() > 1e-2


def test_frozen_memory_keeps_its_first_weights(checkpoint: Path) -> None:
    model = AllMemForCausalLM.from_pretrained(checkpoint).eval()
    for layer in model.model.layers:
        restrain_layer(layer, "frozen")
    with torch.no_grad():
        state = model(torch.as_tensor(IDS)[None]).state
    for layer, tensors in zip(model.model.layers, state.layers, strict=True):
        first = layer.allmem.constants()[2]
        assert float(tensors.momentum.abs().max()) < 1e-30
        assert torch.allclose(tensors.weights[0], first, rtol=1e-6, atol=1e-6)


def test_silent_memory_with_a_window_over_everything_is_the_original(
    checkpoint: Path, tmp_path: Path
) -> None:
    manifest = export(
        checkpoint, tmp_path / "full", window=128, sinks=0, memory="disabled", **EXACT
    )
    assert (manifest.window, manifest.sinks, manifest.chunk) == (128, 0, 16)
    wanted = pytorch(checkpoint, "disabled", window=512, sinks=0)
    np.testing.assert_allclose(last_logits(tmp_path / "full"), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("memory", ["enabled", "frozen", "disabled"])
def test_export_follows_the_switch(checkpoint: Path, tmp_path: Path, memory: str) -> None:
    export(checkpoint, tmp_path / "model", memory=memory, window=20, chunk=10, **EXACT)
    wanted = pytorch(checkpoint, memory, window=20, chunk=10)
    np.testing.assert_allclose(last_logits(tmp_path / "model"), wanted, rtol=1e-4, atol=1e-4)


def test_exports_of_one_decoder_say_so_whatever_was_switched(
    checkpoint: Path, tmp_path: Path
) -> None:
    def decoder(source: Path, name: str, **options: object) -> str:
        manifest = export(source, tmp_path / name, **{**EXACT, **options})
        return manifest.source[DECODER_KEY]

    assert len(decoder(checkpoint, "enabled")) == 64
    assert decoder(checkpoint, "disabled", memory="disabled", window=40) == decoder(
        checkpoint, "half", memory="frozen", weights="float16"
    )
    assert decoder(checkpoint, "enabled") == decoder(checkpoint, "disabled", memory="disabled")
    other = write_tiny_checkpoint(tmp_path / "other", tiny_config(), seed=1)
    assert decoder(other, "elsewhere") != decoder(checkpoint, "enabled")


def test_window_shorter_than_the_chunk_shortens_it(checkpoint: Path, tmp_path: Path) -> None:
    assert export(checkpoint, tmp_path / "model", window=8, **EXACT).chunk == 8


def test_unknown_switch_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="allowed: enabled, frozen, disabled"):
        export(checkpoint, tmp_path / "model", memory="off")


def test_damaged_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "half")
    weights = tmp_path / "half/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ConversionError, match="is damaged"):
        export(tmp_path / "half", tmp_path / "model", **EXACT)


def test_conversion_takes_trained_memories(tmp_path: Path) -> None:
    write_folder(tmp_path / "pretrained")
    options = {"window": 32, "sinks": 4, "chunk": 16}
    plain = convert(tmp_path / "pretrained", tmp_path / "plain", mem_width=16, inner_loss="l2",
                    **options)  # fmt: skip
    model = AllMemForCausalLM.from_pretrained(plain)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.allmem.alpha.normal_()
    save_adapter(model, tmp_path / "memory.safetensors", {"steps": 7}, base_digest(model))
    out = convert(
        tmp_path / "pretrained", tmp_path / "out", memory=tmp_path / "memory.safetensors", **options
    )
    trained = AllMemForCausalLM.from_pretrained(out)
    assert trained.config.inner_loss == "l2" and trained.config.mem_width == 16
    for layer, source in zip(trained.model.layers, model.model.layers, strict=True):
        assert torch.equal(layer.allmem.alpha, source.allmem.alpha)
        # Matrices are kept in float16.
        assert torch.allclose(layer.allmem.k_proj.weight, source.allmem.k_proj.weight, rtol=1e-3)
    assert "7 training steps" in (out / "provenance.json").read_text()


def test_trained_memories_stay_exact_beside_a_decoder_in_16_bits(tmp_path: Path) -> None:
    write_folder(tmp_path / "pretrained")
    options = {"window": 32, "sinks": 4, "chunk": 16, "dtype": "bfloat16"}
    plain = convert(tmp_path / "pretrained", tmp_path / "plain", mem_width=16, **options)
    model = AllMemForCausalLM.from_pretrained(plain, dtype=torch.float32)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.allmem.alpha.normal_()
            layer.allmem.lr_proj.bias.sub_(0.01)
    save_adapter(model, tmp_path / "m", {}, base_digest(model))
    out = convert(tmp_path / "pretrained", tmp_path / "out", memory=tmp_path / "m", **options)
    trained = AllMemForCausalLM.from_pretrained(out, dtype=torch.float32)
    for layer, source in zip(trained.model.layers, model.model.layers, strict=True):
        assert torch.equal(layer.allmem.alpha, source.allmem.alpha)
        assert torch.equal(layer.allmem.lr_proj.bias, source.allmem.lr_proj.bias)
    assert (
        AllMemForCausalLM.from_pretrained(out)(torch.as_tensor(IDS % 90)[None])
        .logits.isfinite()
        .all()
    )


def test_trained_memories_are_not_calibrated_again(tmp_path: Path) -> None:
    write_folder(tmp_path / "pretrained")
    options = {"window": 32, "sinks": 4, "chunk": 16}
    plain = convert(tmp_path / "pretrained", tmp_path / "plain", mem_width=16, **options)
    model = AllMemForCausalLM.from_pretrained(plain)
    save_adapter(model, tmp_path / "m", {}, base_digest(model))
    with pytest.raises(ConfigError, match="calibrat"):
        convert(
            tmp_path / "pretrained", tmp_path / "out", memory=tmp_path / "m",
            calibration_text="text", **options,
        )  # fmt: skip


@pytest.mark.parametrize(
    "options", [["l2"], {"inner_loss": "l2", "window": 8}, {"nonsense": 1}, {}]
)
def test_adapter_with_other_options_than_a_memory_has_is_refused(
    tmp_path: Path, options: object
) -> None:
    text = {"format": "allmem-memory-adapter", "version": "1", "base": "", "manifest": "{}"}
    save_file({}, tmp_path / "m", metadata={**text, "config": json.dumps(options)})
    with pytest.raises(ConversionError, match="cannot be read"):
        Adapter(tmp_path / "m")


def test_conversion_refuses_memories_of_another_decoder(tmp_path: Path) -> None:
    write_folder(tmp_path / "pretrained")
    options = {"window": 32, "sinks": 4, "chunk": 16}
    plain = convert(tmp_path / "pretrained", tmp_path / "plain", mem_width=16, **options)
    save_adapter(AllMemForCausalLM.from_pretrained(plain), tmp_path / "m", {}, "another")
    with pytest.raises(ConversionError, match="another decoder"):
        convert(tmp_path / "pretrained", tmp_path / "out", memory=tmp_path / "m", **options)
    assert not (tmp_path / "out").exists()
