"""A folder in transformers' layout becomes an AllMem checkpoint, or says why it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import TEMPLATE, write_folder
from decoders import DECODERS, relative_rms
from safetensors.torch import load_file, save_file

from allmem_exporters import AllMemForCausalLM, ConfigError, ConversionError
from allmem_exporters.convert import conversion
from allmem_exporters.convert.conversion import convert
from allmem_exporters.convert.weights_file import write_weights
from allmem_exporters.model.families import FAMILIES
from allmem_exporters.onnx.export import export

MEMORY: dict[str, Any] = {"window": 32, "sinks": 4, "chunk": 16, "mem_width": 16}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "pretrained"
    write_folder(folder)
    return folder


def change_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("name", DECODERS)
def test_every_weight_of_the_decoder_is_copied_bit_for_bit(tmp_path: Path, name: str) -> None:
    pretrained = write_folder(tmp_path / "pretrained", name)
    out = convert(tmp_path / "pretrained", tmp_path / "out", cache_dtype="float32", **MEMORY)
    model = AllMemForCausalLM.from_pretrained(out).eval()
    ours = model.state_dict()
    family = FAMILIES[pretrained.config.model_type]
    packed = family.packed
    rotary = model.config.rotary_dim
    for key, tensor in pretrained.state_dict().items():
        if family.pairs and key.split(".")[-2] in ("q_proj", "k_proj"):
            # Coordinates 2 j and 2 j + 1 of a head turn together there, j and j + rotary / 2 here.
            order = [*range(0, rotary, 2), *range(1, rotary, 2)]
            order += range(rotary, model.config.head_dim)
            tensor = tensor.unflatten(0, (-1, model.config.head_dim))[:, order].flatten(0, 1)
        inner = key.split(".", 3)[-1].rpartition(".")[0]
        if key.startswith("model.layers.") and inner in family.renamed:
            key = key.replace(f".{inner}.", f".{family.renamed[inner]}.")
        whole = next((whole for whole in packed if f".{whole}." in key), "")
        parts = [key.replace(whole, part) for part in packed.get(whole, [whole])]
        assert torch.equal(torch.cat([ours[part] for part in parts]), tensor), key
    ids = torch.arange(32)[None] + 3
    with torch.no_grad():
        # float32: sums in another order, and transformers' angles are rounded to float32.
        assert relative_rms(model(ids).logits, pretrained(ids).logits) < 1e-5


def test_texts_and_provenance_come_along(source: Path, tmp_path: Path) -> None:
    out = convert(source, tmp_path / "out", seed=5, **MEMORY)
    assert (out / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert (out / "chat_template.jinja").read_text() == TEMPLATE
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == 2
    record = json.loads((out / "provenance.json").read_text())
    assert record["name"] == "pretrained" and record["kind"] == "folder"
    assert record["licence"] == "apache-2.0" and record["seed"] == "5"
    assert len(record["sha256"]) == 64 and str(tmp_path) not in json.dumps(record)
    assert all(isinstance(value, str) for value in record.values())
    assert str(tmp_path) not in (out / "config.json").read_text()


def test_same_seed_gives_the_same_memory_and_another_seed_another(
    source: Path, tmp_path: Path
) -> None:
    made = []
    for index, seed in enumerate((1, 1, 2)):
        torch.manual_seed(index)  # the surroundings' own random numbers play no part
        out = convert(source, tmp_path / str(index), seed=seed, **MEMORY)
        made.append(load_file(out / "model.safetensors"))
    name = "model.layers.1.allmem.fw_up"
    assert torch.equal(made[0][name], made[1][name])
    assert not torch.equal(made[0][name], made[2][name])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_type_is_kept_unless_another_is_asked_for(source: Path, tmp_path: Path, dtype: str) -> None:
    half = convert(source, tmp_path / "half", dtype=dtype, **MEMORY)
    kinds = {tensor.dtype for tensor in load_file(half / "model.safetensors").values()}
    assert kinds == {getattr(torch, dtype)}
    weights = {name: t.to(getattr(torch, dtype))
               for name, t in load_file(source / "model.safetensors").items()}  # fmt: skip
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    kept = convert(source, tmp_path / "kept", **MEMORY)
    assert AllMemForCausalLM.from_pretrained(kept).dtype == getattr(torch, dtype)


def test_sharded_weights_are_read(tmp_path: Path) -> None:
    pretrained = write_folder(tmp_path / "pretrained")
    (tmp_path / "pretrained" / "model.safetensors").unlink()
    pretrained.save_pretrained(tmp_path / "pretrained", max_shard_size="60KB")
    assert not (tmp_path / "pretrained" / "model.safetensors").exists()
    out = convert(tmp_path / "pretrained", tmp_path / "out", **MEMORY)
    written = load_file(out / "model.safetensors")
    assert torch.equal(written["model.norm.weight"], pretrained.model.norm.weight)


def test_checkpoint_beyond_a_shard_is_written_in_shards_that_export_reads(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = convert(source, tmp_path / "whole", **MEMORY)
    export(whole, tmp_path / "of one", check=False)
    monkeypatch.setitem(write_weights.__kwdefaults__, "most", 60_000)
    shards = convert(source, tmp_path / "whole", **MEMORY)
    index = json.loads((shards / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in shards.glob("*.safetensors"))
    assert files == sorted(set(index["weight_map"].values())) and len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    sizes = [sum(t.nbytes for t in load_file(shards / file).values()) for file in files]
    assert max(sizes) <= 60_000 and index["metadata"]["total_size"] == sum(sizes)
    export(shards, tmp_path / "of many", check=False)
    one, many = (tmp_path / name / "model.onnx.data" for name in ("of one", "of many"))
    assert one.read_bytes() == many.read_bytes()
    assert AllMemForCausalLM.from_pretrained(shards).config.num_hidden_layers == 2
    monkeypatch.undo()
    convert(source, shards, **MEMORY)
    assert [path.name for path in shards.glob("model*")] == ["model.safetensors"], "none is left"


def test_full_disk_is_told_before_weights_are_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(conversion, "calibrated", None)
    for dtype, less in ((None, True), ("bfloat16", False)):
        with pytest.raises(ConversionError, match=r"the disk of .* has 1.0 KiB free") as told:
            convert(source, tmp_path / "out", calibration_text="a", dtype=dtype, **MEMORY)
        assert ("--dtype bfloat16" in told.value.hint) is less
    assert not (tmp_path / "out").exists()


def with_weights(change: str, source: Path) -> None:
    file = source / "model.safetensors"
    weights = load_file(file)
    if change == "missing":
        del weights["model.layers.1.mlp.up_proj.weight"]
    elif change == "extra":
        weights["model.layers.7.mlp.up_proj.weight"] = torch.zeros(2)
    elif change == "misshapen":
        weights["model.norm.weight"] = torch.zeros(47)
    elif change == "integer":
        weights["model.norm.weight"] = torch.zeros(48, dtype=torch.int8)
    elif change == "untied":
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + 1.0
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("missing", "model.layers.1.mlp.up_proj.weight is missing"),
        ("extra", "model.layers.7.mlp.up_proj.weight has no place"),
        ("misshapen", r"model.norm.weight has the shape \[47\]"),
        ("integer", "model.norm.weight is int8"),
        ("untied", "lm_head.weight differs from model.embed_tokens.weight"),
    ],
)
def test_weight_that_does_not_fit_is_named(
    source: Path, tmp_path: Path, change: str, named: str
) -> None:
    with_weights(change, source)
    with pytest.raises(ConversionError, match=named):
        convert(source, tmp_path / "out", **MEMORY)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["pretrained"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "mixtral"}, "mixtral"),
        ({"model_type": "no such model"}, "no such model"),
        ({"model_type": "allmem"}, "already"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4,
                              "factor": 2.0}}, "dynamic"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
                              "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"hidden_act": "relu6"}, "relu6"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "auto_map"),
    ],
    ids=["family", "unknown", "converted", "quantized", "rope", "partial", "activation", "code"],
)  # fmt: skip
def test_unsupported_model_is_refused_by_name(
    source: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    change_json(source / "config.json", **changes)
    with pytest.raises(ConversionError, match=named):
        convert(source, tmp_path / "out", **MEMORY)


def test_sliding_window_layers_become_local_and_are_compared(tmp_path: Path) -> None:
    write_folder(tmp_path / "pretrained", "qwen2", use_sliding_window=True, sliding_window=16,
                 max_window_layers=1)  # fmt: skip
    convert(tmp_path / "pretrained", tmp_path / "out", **{**MEMORY, "chunk": 16})
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["local_layers"], config["local_window"]) == ([1], 16)


def test_layers_of_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "pretrained", "qwen2")
    change_json(
        tmp_path / "pretrained" / "config.json",
        layer_types=["full_attention", "chunked_attention"],
    )
    with pytest.raises(ConversionError, match="chunked_attention"):
        convert(tmp_path / "pretrained", tmp_path / "out", **MEMORY)


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("config.json", "there is no config.json"),
        ("model.safetensors", "no weights in safetensors form"),
        ("tokenizer.json", "there is no tokenizer.json"),
    ],
)
def test_missing_file_is_named(source: Path, tmp_path: Path, file: str, named: str) -> None:
    (source / file).unlink()
    with pytest.raises(ConversionError, match=named):
        convert(source, tmp_path / "out", **MEMORY)


def test_damaged_weights_are_refused(source: Path, tmp_path: Path) -> None:
    file = source / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ConversionError, match="damaged"):
        convert(source, tmp_path / "out", **MEMORY)


def test_shard_outside_the_folder_is_never_read(source: Path, tmp_path: Path) -> None:
    (source / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    index = {"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConversionError, match="no plain file name"):
        convert(source, tmp_path / "out", **MEMORY)


def test_earlier_conversion_is_replaced_and_other_folders_are_not(
    source: Path, tmp_path: Path
) -> None:
    out = convert(source, tmp_path / "out", **MEMORY)
    convert(source, out, **(MEMORY | {"sinks": 2}))
    assert json.loads((out / "config.json").read_text())["sinks"] == 2
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(ConversionError, match="not empty"):
        convert(source, mine, **MEMORY)
    convert(source, mine, force=True, **MEMORY)
    assert (mine / "thesis.txt").read_text() == "years of work"
    with pytest.raises(ConversionError, match="is a file"):
        convert(source, mine / "thesis.txt", **MEMORY)


def test_misspelt_option_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'sink'"):
        convert(tmp_path / "nothing", tmp_path / "out", sink=3)
    with pytest.raises(ConfigError, match="dtype is 'int8'"):
        convert(tmp_path / "nothing", tmp_path / "out", dtype="int8")
    with pytest.raises(ConfigError, match="'hidden_size'"):  # follows from the source
        convert(tmp_path / "nothing", tmp_path / "out", hidden_size=64)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("no-such-folder", "neither a file, nor a folder"),
        ("owner/no-such-model", "hub"),
        ("missing.gguf", "neither a file, nor a folder"),
        ("owner/missing.gguf", "neither a file, nor a folder"),
    ],
)
def test_source_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConversionError, match=named) as caught:
        convert(name, tmp_path / "out")
    assert name in str(caught.value)


def test_model_in_the_hubs_cache_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789" * 4
    repository = tmp_path / "cache" / "models--owner--tiny"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    write_folder(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    out = convert("owner/tiny", tmp_path / "out", **MEMORY)
    record = json.loads((out / "provenance.json").read_text())
    assert (record["kind"], record["name"], record["revision"]) == ("hub", "owner/tiny", commit)
    with pytest.raises(ConversionError, match="a revision was given"):
        convert(snapshot, tmp_path / "other", revision="main", **MEMORY)


def test_short_window_shortens_the_chunk_unless_it_was_chosen(source: Path, tmp_path: Path) -> None:
    out = convert(source, tmp_path / "out", window=32, mem_width=16)
    assert json.loads((out / "config.json").read_text())["chunk"] == 32
    with pytest.raises(ConfigError, match="chunk is 64; it must be at most window, 32"):
        convert(source, tmp_path / "other", window=32, chunk=64, mem_width=16)


def test_calibration_gives_values_of_size_one(source: Path, tmp_path: Path) -> None:
    text = "the thing that the other thing thought " * 12
    out = convert(source, tmp_path / "out", calibration_text=text, **MEMORY)
    model = AllMemForCausalLM.from_pretrained(out)
    from tokenizers import Tokenizer

    ids = torch.tensor([Tokenizer.from_file(str(out / "tokenizer.json")).encode(text).ids[:512]])
    layer = model.model.layers[0]
    with torch.no_grad():
        raw = layer.allmem.v_proj(layer.input_layernorm(model.model.embed_tokens(ids)))
        taps = layer.allmem.v_conv.weight
        padded = torch.cat([torch.zeros(1, 3, 16), raw], dim=1)
        mixed = sum(padded[:, tap : tap + ids.shape[1]] * taps[:, tap] for tap in range(4))
        values = torch.nn.functional.silu(mixed).unflatten(-1, (2, 8))
    # found by iteration to far below one per cent
    assert torch.allclose(values.square().mean((0, 1, 3)).sqrt(), torch.ones(2), atol=1e-3)
    with pytest.raises(ConversionError, match="calibration text is empty"):
        convert(source, tmp_path / "other", calibration_text="", **MEMORY)


def test_calibration_tells_keys_apart_and_keeps_what_attention_compares(
    source: Path, tmp_path: Path
) -> None:
    text = "the thing that the other thing thought of some other day " * 12
    plain = AllMemForCausalLM.from_pretrained(convert(source, tmp_path / "plain", **MEMORY))
    out = convert(source, tmp_path / "out", calibration_text=text, **MEMORY)
    white = AllMemForCausalLM.from_pretrained(out)
    from tokenizers import Tokenizer

    ids = torch.tensor([Tokenizer.from_file(str(out / "tokenizer.json")).encode(text).ids])
    with torch.no_grad():
        rows = plain.model.layers[0].input_layernorm(plain.model.embed_tokens(ids))[0].double()
        heads = plain.model.layers[0].allmem.heads

        def split(model: AllMemForCausalLM, name: str) -> torch.Tensor:
            weight = getattr(model.model.layers[0].allmem, name).weight.double()
            return (rows @ weight.T).unflatten(-1, (heads, -1)).transpose(0, 1)

        before, after = split(plain, "k_proj"), split(white, "k_proj")
        spread = torch.linalg.eigvalsh(after.mT @ after / len(rows))
        # A text of few words does not span every key: what it does span is white.
        assert torch.all((spread > 0.99).sum(-1) >= torch.linalg.matrix_rank(after) - 1)
        assert spread.max() < 1.001
        assert after.mean(1).norm(dim=-1).max() < 1e-4 < before.mean(1).norm(dim=-1).min()
        blind = before - before.mean(1, keepdim=True) * (rows @ rows.mean(0))[:, None] / (
            rows.mean(0).square().sum()
        )
        expected = split(plain, "q_proj") @ blind.mT
        found = split(white, "q_proj") @ after.mT
        # float32 weights of a whitened head: the products agree to rounding
        assert (found - expected).norm() < 1e-4 * expected.norm()
