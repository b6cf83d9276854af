"""Decoders whose mathematics transformers' own code computes: converted, compared, refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from allmem_exporters import ConversionError
from allmem_exporters.commands.convert import convert as command
from allmem_exporters.convert.conversion import convert
from allmem_exporters.errors import ConfigError, ExportError
from allmem_exporters.generic import decoder as decoding
from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.decoder import GenericDecoder
from allmem_exporters.generic.weights import GenericCheckpoint
from allmem_exporters.make import make
from allmem_exporters.model.checkpoint import open_checkpoint
from allmem_exporters.model.memory_options import MemoryOptions
from benchmarks.families.tiny import GENERIC, write_tiny_decoder

MEMORY = MemoryOptions(window=32, sinks=4, chunk=16, mem_width=16)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_tiny_decoder(tmp_path / "source", "gpt_neox")
    return tmp_path / "source"


@pytest.mark.parametrize("kind", GENERIC)
def test_every_family_agrees_with_transformers(tmp_path: Path, kind: str) -> None:
    write_tiny_decoder(tmp_path / "source", kind)
    lines: list[str] = []
    folder = convert(tmp_path / "source", tmp_path / "out", MEMORY, report=lines.append)
    assert "with our attention in it: logits of 80 tokens through all 2 layers" in lines[-1]
    # float32: sums in another order, and transformers' angles are rounded to float32.
    assert float(lines[-1].split(" by ")[1].split()[0]) < 1e-5
    assert json.loads((folder / "provenance.json").read_text())["path"] == "generic"
    config = GenericCheckpoint(folder).config
    assert isinstance(config, GenericConfig) and config.backbone == kind


def test_weights_are_copied_bit_for_bit_under_the_names_of_today(tmp_path: Path) -> None:
    model = write_tiny_decoder(tmp_path / "source", "gpt_neox")  # saved as embed_out
    weights = GenericCheckpoint(convert(tmp_path / "source", tmp_path / "out", MEMORY))
    for name, parameter in model.named_parameters():
        assert torch.equal(weights.tensor(name), parameter), name
    assert not weights.tensor("gpt_neox.layers.1.attention.allmem.alpha").any()


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("gptj", {}, "a rope without frequencies, whose angles are kept in a table"),
        ("hunyuan_v1_dense", {"head_dim": 12}, "keys that are changed behind the rope"),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, "no plain product"),
        ("ministral3", {"head_dim": 12}, "positions that act otherwise than by a rope"),
        ("gpt2", {}, "no plain product"),
        ("bloom", {}, "attention that does not call transformers' AttentionInterface"),
        ("llama4_text", {}, "a mixture of experts"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_refused_by_name(
    tmp_path: Path, kind: str, changes: dict[str, Any], said: str
) -> None:
    write_tiny_decoder(tmp_path / "source", kind, **changes)
    with pytest.raises(ConversionError, match=said):
        convert(tmp_path / "source", tmp_path / "out", MEMORY)
    assert not (tmp_path / "out").exists()


def test_rope_that_depends_on_the_length_is_refused(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    write_tiny_decoder(tmp_path / "source", "phi", rope_parameters=rope)
    with pytest.raises(ConversionError, match="'dynamic'.*depend on the length read so far"):
        convert(tmp_path / "source", tmp_path / "out", MEMORY)


def test_unknown_field_is_refused(source: Path) -> None:
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"logit_softness": 3}))
    with pytest.raises(ConversionError, match="logit_softness is '3', a field that gpt_neox"):
        convert(source, source.parent / "out", MEMORY)


def test_size_under_a_name_of_its_own_is_bounded_before_anything_is_built(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt_bigcode", "n_layer": 1000000000}')
    with pytest.raises(ConversionError, match="num_hidden_layers is 1000000000"):
        convert(tmp_path, tmp_path / "out", MEMORY)


@pytest.mark.parametrize("what", ["scale", "frequencies", "order"])
def test_wrong_attention_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    write_tiny_decoder(tmp_path / "source", "ernie4_5")
    found = GenericConfig.probed.fget
    assert found is not None

    def spoiled(config: GenericConfig) -> Any:
        probed = found(config)
        site = probed.sites[1]
        rope = site.rope
        if what == "scale":
            site = dataclasses.replace(site, scale=1.1 * site.scale)
        elif what == "frequencies":
            rope = dataclasses.replace(rope, frequencies=tuple(1.1 * f for f in rope.frequencies))
        else:
            rope = dataclasses.replace(rope, order=None)
        site = dataclasses.replace(site, rope=rope)
        return dataclasses.replace(probed, sites=(probed.sites[0], site))

    monkeypatch.setattr(GenericConfig, "probed", property(spoiled))
    with pytest.raises(ConversionError, match="differs from transformers' own: the logits"):
        convert(tmp_path / "source", tmp_path / "out", MEMORY)


def test_window_that_a_model_was_trained_with_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_decoder(tmp_path / "source", "starcoder2")
    with pytest.raises(ConfigError, match="window is 201; the model was trained with a window of"):
        convert(tmp_path / "source", tmp_path / "out", window=201, mem_width=16)
    attributes = GenericDecoder.attributes
    wider = lambda self, index: attributes(self, index) | {"window": 200}  # noqa: E731
    monkeypatch.setattr(decoding.GenericDecoder, "attributes", wider)
    with pytest.raises((ConversionError, RuntimeError)):
        convert(tmp_path / "source", tmp_path / "out", MEMORY)


def test_memory_is_heard_where_alpha_is_not_nothing(source: Path) -> None:
    weights = GenericCheckpoint(convert(source, source.parent / "out", MEMORY))
    assert isinstance(weights.config, GenericConfig)
    model = decoding.model_without_values(weights.config)
    for name, _ in list(model.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        value = torch.nn.Parameter(weights.tensor(name), requires_grad=False)
        setattr(model.get_submodule(owner), leaf, value)
    decoder = GenericDecoder(model, weights.config)
    from allmem_exporters.model.state import AllMemState

    def logits() -> Tensor:
        state = list(AllMemState.blank(weights.config))
        ids = torch.arange(16)[None]
        with torch.no_grad():
            return decoder(ids, torch.tensor([0]), torch.arange(16), state)[0]

    silent = logits()
    for site in weights.config.probed.sites:
        model.get_submodule(site.path).allmem.alpha.fill_(1.0)
    assert (logits() - silent).abs().max() > 1e-3 * silent.std()


def test_options_that_need_a_known_family_are_refused(source: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "out", tmp_path / "table.json"
    with pytest.raises(ExportError, match="all heads have one window.*Leave --windows out"):
        convert(source, out, MEMORY, windows=table)
    with pytest.raises(ExportError, match="not fitted to a text"):
        make(source, out, MEMORY, calibration_text="a text")
    folder = convert(source, out, MEMORY, check=False)
    with pytest.raises(ConversionError, match=r"gpt_neox model on the generic path.*allmem export"):
        open_checkpoint(folder, torch.float32)


def test_command_says_what_was_compared(source: Path, tmp_path: Path) -> None:
    arguments = [str(source), str(tmp_path / "out"), "--mem-width", "16", "--window", "32"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "logits of 80 tokens through all 2 layers" in result.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model_type": "xlnet"}, "config.json cannot be read .*no sequence length limit"),
        ({"model_type": "prophetnet"}, "config.json cannot be read .*num_hidden_layers"),
        ({"model_type": "moshi"}, "several parts, each with a configuration of its own"),
        ({"model_type": "gemma3", "text_config": {"model_type": "timm_wrapper"}}, "several parts"),
        ({"hidden_act": "none such"}, "transformers' own code cannot run it .*none such"),
    ],
)
def test_whatever_a_class_of_transformers_raises_is_one_error(
    source: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    path = source / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises(ConversionError, match=said):
        convert(source, tmp_path / "out", MEMORY)


@pytest.mark.parametrize(
    ("decoder", "said"),
    [
        ({"hidden_act": "none such"}, "transformers' own code cannot run .*none such"),
        ({"model_type": "gemma3"}, "decoder must be the configuration of the backbone's own"),
        ({"no_setting": 1}, "decoder.no_setting is no setting"),
    ],
)
def test_checkpoint_whose_decoder_cannot_be_run_is_refused_by_name(
    source: Path, tmp_path: Path, decoder: dict[str, Any], said: str
) -> None:
    folder = convert(source, tmp_path / "out", MEMORY)
    path = folder / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "decoder": {**values["decoder"], **decoder}}))
    with pytest.raises(ConfigError, match=said):
        GenericCheckpoint(folder)


def test_tables_that_a_configuration_alone_makes_large_are_refused(
    source: Path, tmp_path: Path
) -> None:
    """Numbers of all positions: gibibytes, which are on no device before they are filled."""
    path = source / "config.json"
    large = {"model_type": "bert", "max_position_embeddings": 1 << 27, "hidden_size": 48,
             "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97}  # fmt: skip
    path.write_text(json.dumps(large))
    with pytest.raises(ConversionError, match=r"tables of a bert decoder .* take 2.0 GiB"):
        convert(source, tmp_path / "out", MEMORY)


def test_checkpoint_of_several_parts_is_refused_by_name(source: Path, tmp_path: Path) -> None:
    folder = convert(source, tmp_path / "out", MEMORY)
    path = folder / "config.json"
    parts = {"backbone": "gemma3", "decoder": {"model_type": "gemma3"}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))
    with pytest.raises(ConfigError, match="'gemma3', of which a decoder is only a part"):
        GenericCheckpoint(folder)
