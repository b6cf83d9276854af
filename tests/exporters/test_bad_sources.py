"""Sources whose headers promise what is not there: one line names the tensor and the file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import write_folder, write_gguf
from gguf import GGMLQuantizationType as Kind
from hostile.fuzz.formats._gguf_parts import Field, Parts, put_together, taken_apart
from safetensors.torch import load_file, save_file

from allmem_exporters.convert.conversion import convert
from allmem_exporters.errors import ConversionError
from allmem_exporters.make import make
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.optimum.command import run as optimum
from allmem_exporters.sources import open_source
from allmem_exporters.sources.gguf_file import GgufFile
from allmem_exporters.tensor_reader import TensorFile

MEMORY = MemoryOptions(window=32, sinks=4, chunk=16, mem_width=16)


def with_header(file: Path, change: Callable[[dict[str, dict[str, object]]], None]) -> None:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def beyond_the_end(header: dict[str, dict[str, object]]) -> None:
    header["model.norm.weight"] |= {"shape": [1 << 40], "data_offsets": [0, 1 << 42]}


def another_size(header: dict[str, dict[str, object]]) -> None:
    header["model.norm.weight"]["shape"] = [47]


def another_type(header: dict[str, dict[str, object]]) -> None:
    header["model.norm.weight"]["dtype"] = "Q9"


def no_place(header: dict[str, dict[str, object]]) -> None:
    del header["model.norm.weight"]["data_offsets"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (beyond_the_end, "model.norm.weight would end at byte"),
        (another_size, "model.norm.weight, F32 .47., takes 188 bytes; its header gives it 192"),
        (another_type, "model.norm.weight is of the unknown type 'Q9'"),
        (no_place, "does not say where the tensor model.norm.weight lies"),
    ],
)
def test_shard_that_promises_too_much_is_refused_by_tensor_and_file(
    tmp_path: Path, change: Callable[[dict[str, dict[str, object]]], None], said: str
) -> None:
    write_folder(tmp_path / "source")
    with_header(tmp_path / "source" / "model.safetensors", change)
    with pytest.raises(ConversionError, match=rf"model\.safetensors is damaged: .*{said}"):
        make(tmp_path / "source", tmp_path / "out", MEMORY)
    assert not (tmp_path / "out").exists()


def test_header_longer_than_the_file_takes_no_memory(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(ConversionError, match="the header would be"):
        TensorFile(file)
    file.write_bytes(b"")
    with pytest.raises(ConversionError, match=r"model\.safetensors is damaged"):
        TensorFile(file)


def test_shard_cut_after_it_was_opened_is_refused_by_tensor(tmp_path: Path) -> None:
    write_folder(tmp_path / "source")
    path = tmp_path / "source" / "model.safetensors"
    opened = TensorFile(path)
    last = max(opened.entries, key=lambda name: opened.entries[name].offset)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ConversionError, match=f"ends within the tensor {last}"):
        opened.tensor(last)


@pytest.mark.parametrize("way", ["make", "convert", "optimum-cli"])
def test_missing_shard_is_named(tmp_path: Path, way: str) -> None:
    commands = {"make": make, "convert": convert, "optimum-cli": optimum}
    pretrained = write_folder(tmp_path / "source")
    (tmp_path / "source" / "model.safetensors").unlink()
    pretrained.save_pretrained(tmp_path / "source", max_shard_size="60KB")
    gone = sorted((tmp_path / "source").glob("model-*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(ConversionError, match=f"{gone.name} is missing"):
        commands[way](tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.gguf"
    write_gguf(file, kinds={"proj": Kind.Q8_0}, hidden_size=64, intermediate_size=96)
    return file


def last_tensor(file: Path) -> str:
    tensors = GgufFile(file).tensors
    return max(tensors, key=lambda name: tensors[name].offset)


def test_truncated_gguf_is_refused_by_tensor_and_file(gguf: Path, tmp_path: Path) -> None:
    name = last_tensor(gguf)
    gguf.write_bytes(gguf.read_bytes()[:-200])
    with pytest.raises(ConversionError, match=rf"tiny\.gguf is damaged: .*{name} would end at"):
        make(gguf, tmp_path / "out", MEMORY)


def test_gguf_cut_after_it_was_opened_is_refused_by_tensor(gguf: Path) -> None:
    name = last_tensor(gguf)
    opened = GgufFile(gguf)
    gguf.write_bytes(gguf.read_bytes()[:-200])
    with pytest.raises(ConversionError, match=f"ends within the tensor {name}"):
        opened.values(name, 0, opened.tensors[name].shape[0])


def changed_entry(file: Path, name: bytes, *, kind: int | None = None, rows: int = 0) -> None:
    """Change a matrix's type or rows in the header."""
    data = bytearray(file.read_bytes())
    at = data.index(struct.pack("<Q", len(name)) + name) + 8 + len(name) + 4
    if kind is not None:
        data[at + 16 : at + 20] = struct.pack("<I", kind)
    if rows:
        data[at + 8 : at + 16] = struct.pack("<Q", rows)
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("kind", "said"),
    [(1234, "as number 1234, which is unknown"), (24, "as I8, which cannot be read")],
)
def test_block_type_that_nobody_reads_is_refused_by_tensor(
    gguf: Path, tmp_path: Path, kind: int, said: str
) -> None:
    changed_entry(gguf, b"blk.1.ffn_up.weight", kind=kind)
    with pytest.raises(
        ConversionError, match=rf"tiny\.gguf: .*blk\.1\.ffn_up\.weight is quantized {said}"
    ):
        make(gguf, tmp_path / "out", MEMORY)


def test_gguf_tensor_larger_than_the_file_is_refused_before_memory_is_taken(
    gguf: Path, tmp_path: Path
) -> None:
    changed_entry(gguf, b"blk.1.ffn_up.weight", rows=1 << 50)
    with pytest.raises(ConversionError, match=r"blk\.1\.ffn_up\.weight would end at byte"):
        make(gguf, tmp_path / "out", MEMORY)


@pytest.mark.parametrize("at", [8, 16])
def test_gguf_that_promises_endless_entries_is_refused(gguf: Path, at: int) -> None:
    data = bytearray(gguf.read_bytes())
    data[at : at + 8] = struct.pack("<Q", 1 << 60)
    gguf.write_bytes(data)
    with pytest.raises(ConversionError, match=r"tiny\.gguf is not an intact GGUF file .*promises"):
        open_source(str(gguf))


@pytest.mark.parametrize("length", [5, 14])
def test_gguf_cut_within_its_header_says_so(gguf: Path, length: int) -> None:
    gguf.write_bytes(gguf.read_bytes()[:length])
    with pytest.raises(ConversionError, match=f"ends within its header, after {length} bytes"):
        open_source(str(gguf))


def test_no_cut_of_a_header_reaches_anything_but_an_error(gguf: Path) -> None:
    whole = gguf.read_bytes()
    for length in range(1, 4000, 37):
        gguf.write_bytes(whole[:length])
        with pytest.raises(ConversionError, match=r"tiny\.gguf") as refused:
            open_source(str(gguf))
        assert "buffer" not in str(refused.value)  # in our words, not those of a library


# Metadata of other types than they must be -----------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("llama.attention.head_count", "four", "must be an integer from 1 on"),
        ("llama.attention.head_count", 0, "must be an integer from 1 on"),
        ("llama.rope.scaling.type", 7, "must be a text"),
        ("llama.attention.sliding_window", "wide", "must be an integer from 0 on"),
        ("tokenizer.ggml.bos_token_id", "one", "must be the id of a token"),
        ("tokenizer.ggml.add_bos_token", 1, "must be true or false"),
        ("tokenizer.ggml.scores", "x", "must be a list of float"),
        ("general.alignment", "x", "its alignment is 'x'"),
    ],
)
def test_gguf_metadata_of_another_type_is_refused_by_key(
    tmp_path: Path, key: str, value: object, said: str
) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    parts = taken_apart(file.read_bytes())
    parts.fields = [field for field in parts.fields if field.key.decode() != key]
    text = str(value).encode()
    kind, data = (4, struct.pack("<I", value)) if isinstance(value, int) else (8, b"")
    parts.fields.append(Field(key.encode(), kind, data or struct.pack("<Q", len(text)) + text))
    file.write_bytes(put_together(parts))
    with pytest.raises(ConversionError, match=rf"tiny\.gguf.*{said}"):
        make(file, tmp_path / "out", MEMORY)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda parts: parts.fields.append(parts.fields[3]), "twice"),
        (lambda parts: setattr(parts.tensors[0], "sizes", [0, 4]), "is empty"),
        (
            lambda parts: setattr(parts.tensors[-1], "name", "blk.\u0661.attn_q.weight".encode()),
            "has no counterpart",
        ),
    ],
    ids=["key twice", "empty tensor", "other digits"],
)
def test_gguf_that_readers_could_take_for_another_is_refused(
    tmp_path: Path, change: Callable[[Parts], None], said: str
) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    parts = taken_apart(file.read_bytes())
    change(parts)
    file.write_bytes(put_together(parts))
    with pytest.raises(ConversionError, match=rf"tiny\.gguf.*{said}"):
        make(file, tmp_path / "out", MEMORY)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_hidden_layers": 1 << 40}, "num_hidden_layers is 1099511627776; it must be"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0; it must be"),
        ({"hidden_size": "48"}, "hidden_size is '48'; it must be"),
        ({"vocab_size": 97.0}, r"vocab_size is 97\.0; it must be"),
        ({"model_type": ["llama"]}, "its model_type is"),
        ({"rope_parameters": 5}, "rope_parameters is 5; it must be an object"),
        ({"rope_parameters": {"rope_theta": True}}, "rope_theta is True; allowed are"),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor is missing"),
        (
            {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0,
                                 "high_freq_factor": 4.0}},
            "it must be below",
        ),
        ({"layer_types": 5}, "config.json cannot be read"),
        ({"hidden_act": {"a": 1}}, "config.json cannot be read"),
    ],
)  # fmt: skip
def test_configuration_of_other_types_is_refused_by_key(
    tmp_path: Path, values: dict[str, object], said: str
) -> None:
    write_folder(tmp_path / "source")
    path = tmp_path / "source" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(ConversionError, match=said):
        open_source(str(tmp_path / "source"))


@pytest.mark.parametrize(
    "places", [[1], {"a": ["x"]}, {"a": {}}, {"a": ".."}, {"a": "\0"}, {"a": "x" * 5000}]
)
def test_index_that_names_no_files_is_refused(tmp_path: Path, places: object) -> None:
    write_folder(tmp_path / "source")
    (tmp_path / "source" / "model.safetensors").unlink()
    index = tmp_path / "source" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(ConversionError, match=r"index\.json names"):
        open_source(str(tmp_path / "source"))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 1e30])
@pytest.mark.parametrize("way", [convert, make])
def test_weight_that_is_not_finite_is_refused_by_name(
    tmp_path: Path, way: Callable[..., object], value: float
) -> None:
    write_folder(tmp_path / "source", torch_dtype="float32")
    name = "model.layers.1.self_attn.v_proj.weight"
    file = tmp_path / "source" / "model.safetensors"
    tensors = load_file(file)
    tensors[name][3, 2] = value
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ConversionError, match=rf"source: the weight {name} holds a value that is"):
        way(tmp_path / "source", tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()
