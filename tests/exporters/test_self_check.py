"""A conversion that is not the pretrained model is refused, whatever it is that differs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import write_folder, write_gguf
from click.testing import CliRunner
from decoders import DECODERS
from torch import Tensor

from allmem_exporters import ConversionError
from allmem_exporters.commands.convert import convert as command
from allmem_exporters.convert import self_check
from allmem_exporters.convert.conversion import convert
from allmem_exporters.convert.converted_weights import ConvertedWeights
from allmem_exporters.convert.opening import open_conversion
from allmem_exporters.convert.pretrained_reading import PretrainedReading
from allmem_exporters.convert.self_check import check_conversion
from allmem_exporters.make import make
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.sources import Source, open_source
from allmem_exporters.sources.gguf_architectures import ARCHITECTURES

MEMORY = MemoryOptions(window=32, sinks=4, chunk=16, mem_width=16)


def opened(source: Path) -> tuple[Source, ConvertedWeights]:
    found, weights, _ = open_conversion(
        source, MEMORY, seed=0, dtype=None, revision=None, memory=None
    )
    return found, weights


def checked(source: Path, texts: Path, **changes: Any) -> list[str]:
    """What the check says of a conversion whose configuration has other values."""
    found, weights = opened(source)
    for key, value in changes.items():
        setattr(weights.config, key, value)
    texts.mkdir(exist_ok=True)
    found.write_texts(texts)
    lines: list[str] = []
    check_conversion(found, weights, weights.dtype, texts, lines.append)
    return lines


def error_in(line: str) -> float:
    return float(line.split(" by ")[1].split()[0])


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_agrees_with_transformers(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "source", name)
    (line,) = checked(tmp_path / "source", tmp_path / "texts")
    # float32: sums in another order, and transformers' angles are rounded to float32.
    assert error_in(line) < 1e-5
    assert f"through all {DECODERS[name][2].get('num_hidden_layers', 2)} layers" in line


@pytest.mark.parametrize("name", ["llama tied", "llama untied", "qwen2", "qwen3 tied", "olmo2"])
def test_every_gguf_agrees_with_transformers(tmp_path: Path, name: str) -> None:
    write_gguf(tmp_path / "tiny.gguf", name)
    tokens, logits = checked(tmp_path / "tiny.gguf", tmp_path / "texts")
    assert "awkward texts are those of transformers" in tokens
    assert error_in(logits) < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"rms_norm_eps": 1e-3},
        {"hidden_act": "gelu"},
        {"tie_word_embeddings": True},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 20000.0}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 1.01}},
    ],
    ids=["epsilon", "activation", "head", "theta", "scaling"],
)
def test_other_mathematics_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_folder(tmp_path / "source", "llama untied")
    with pytest.raises(ConversionError, match=r"source: the converted model differs .* by .*e-0"):
        checked(tmp_path / "source", tmp_path / "texts", **changes)


def test_another_scaling_of_frequencies_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "source", "llama rope llama3")
    rope = opened(tmp_path / "source")[1].config.rope_parameters | {"high_freq_factor": 4.1}
    with pytest.raises(ConversionError, match="differs from transformers"):
        checked(tmp_path / "source", tmp_path / "texts", rope_parameters=rope)


def test_text_reaches_beyond_the_length_that_the_rope_was_scaled_from(tmp_path: Path) -> None:
    write_folder(tmp_path / "source", "qwen2 rope yarn")
    (line,) = checked(tmp_path / "source", tmp_path / "texts")
    assert "logits of 104 tokens" in line and "positions up to 512" in line


def test_rows_in_another_order_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    other = replace(ARCHITECTURES["llama"], turned=False)
    monkeypatch.setitem(ARCHITECTURES, "llama", other)
    with pytest.raises(ConversionError, match=r"tiny\.gguf: the converted model differs"):
        convert(tmp_path / "tiny.gguf", tmp_path / "out", MEMORY)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]
    assert convert(tmp_path / "tiny.gguf", tmp_path / "out", MEMORY, check=False).is_dir()


def test_making_a_model_refuses_the_same_before_anything_is_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    other = replace(ARCHITECTURES["llama"], turned=False)
    monkeypatch.setitem(ARCHITECTURES, "llama", other)
    lines: list[str] = []
    with pytest.raises(ConversionError, match="the converted model differs"):
        make(tmp_path / "tiny.gguf", tmp_path / "out", MEMORY, report=lines.append)
    assert not any("tracing" in line for line in lines)
    options = ExportOptions(check=False)
    make(tmp_path / "tiny.gguf", tmp_path / "out", MEMORY, options, report=lines.append)


@pytest.mark.parametrize(("noisy", "passes"), [((torch.float32,), True), (None, False)])
def test_model_that_enlarges_rounding_is_judged_in_float64(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    noisy: tuple[torch.dtype, ...] | None,
    passes: bool,
) -> None:
    write_folder(tmp_path / "source")
    exact = self_check.converted_logits

    def shaken(*arguments: Any) -> Tensor:
        found = exact(*arguments)
        if noisy is None or arguments[-1] in noisy:
            found = found + 1e-3 * found.std() * torch.randn_like(found)
        return found

    monkeypatch.setattr(self_check, "converted_logits", shaken)
    if passes:
        (line,) = checked(tmp_path / "source", tmp_path / "texts")
        assert error_in(line) < 1e-6
    else:
        with pytest.raises(ConversionError, match="by 1.0e-03; allowed are 1e-04"):
            checked(tmp_path / "source", tmp_path / "texts")


def test_one_matrix_of_the_pretrained_model_lies_in_memory_at_a_time(tmp_path: Path) -> None:
    write_folder(tmp_path / "source", "qwen2")
    found = open_source(str(tmp_path / "source")).pretrained()
    there: list[int] = []

    class Watched:
        def tensor(self, name: str) -> Tensor:
            held = [p for p in reading.model.parameters() if p.device.type != "meta"]
            there.append(len(held))
            return found.weights.tensor(name)

        def rows(self, name: str, first: int, end: int) -> Tensor:
            return found.weights.rows(name, first, end)

    watched = type(found)(found.config, Watched())
    reading = PretrainedReading(watched, range(97), 3, torch.float32, torch.float32)
    reading.logits([1, 2, 3])
    assert len(there) == 2 * 12 + 1 and max(there) == 1, "a weight beside its bias at most"
    assert all(parameter.device.type == "meta" for parameter in reading.model.parameters())


def test_tokenizer_that_cuts_otherwise_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    source = open_source(str(tmp_path / "tiny.gguf"))
    source.write_texts(tmp_path)
    path = tmp_path / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["merges"] = [["1", "2"]]
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ConversionError, match=r"tiny\.gguf: its tokenizer cuts .*The key"):
        source.compare_texts(tmp_path)


def test_command_prints_what_was_compared_unless_it_shall_not(tmp_path: Path) -> None:
    write_folder(tmp_path / "source")
    arguments = [str(tmp_path / "source"), str(tmp_path / "out"), "--mem-width", "16"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert "compared with transformers' own code: logits of 80 tokens" in result.stderr
    result = CliRunner().invoke(command, [*arguments, "--no-check"], catch_exceptions=False)
    assert result.exit_code == 0 and "compared" not in result.stderr


def test_window_that_a_model_was_trained_with_is_compared(tmp_path: Path) -> None:
    write_folder(tmp_path / "source", "mistral")
    assert error_in(checked(tmp_path / "source", tmp_path / "texts")[0]) < 1e-5
    with pytest.raises(ConversionError, match="differs from transformers' own"):
        checked(tmp_path / "source", tmp_path / "texts", trained_window=None)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("granite", {"embedding_scale": 3.1}),
        ("granite", {"attention_scale": 0.21}),
        ("granite", {"residual_scale": 0.41}),
        ("granite", {"logits_scale": 0.21}),
        ("smollm3", {"unrotated_layers": [2]}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_another_multiplier_is_refused(tmp_path: Path, name: str, changes: dict[str, Any]) -> None:
    write_folder(tmp_path / "source", name)
    with pytest.raises(ConversionError, match="differs from transformers' own"):
        checked(tmp_path / "source", tmp_path / "texts", **changes)
