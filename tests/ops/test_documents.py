"""What the documents state of sizes, fields and names is what the code says."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from allmem_runtime import spec
from allmem_runtime.config import BOUNDS, Backbone, FileRecord, Manifest, Memory
from allmem_runtime.files.snapshot import FORMAT, FORMAT_VERSION, Owner, read_header, save
from allmem_runtime.source_mark import SourceMark
from allmem_runtime.spec import StateSpec
from allmem_runtime.state import Place

ROOT = Path(__file__).parents[2]
MODEL = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
FORMATS = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")
MIB = 1 << 20

SIZES = {
    "SmolLM2-135M": {
        "layers": 30, "kv_heads": 3, "head_dim": 64,
        "memory_heads": 3, "memory_width": 192, "memory_hidden": 128, "kernel": 4,
    },
    "Qwen3-0.6B": {
        "layers": 28, "kv_heads": 8, "head_dim": 128,
        "memory_heads": 8, "memory_width": 512, "memory_hidden": 128, "kernel": 4,
    },
}  # fmt: skip


@pytest.mark.parametrize("window_and_sinks", [(1024, 64), (2048, 64), (4096, 128), (8192, 128)])
@pytest.mark.parametrize("name", SIZES)
def test_stated_state_sizes_are_those_of_the_state_spec(name, window_and_sinks):
    window, sinks = window_and_sinks
    cells = []
    for cache in ("float16", "float32"):
        state = StateSpec.build(window=window, sinks=sinks, cache=cache, **SIZES[name])
        ring = sum(t.nbytes for _, t in state if t.name in ("key", "value"))
        cells.append(f"{state.nbytes / MIB:,.1f} ({ring / MIB:,.1f})")
    assert f"| {name} | {window} | {sinks} | {cells[0]} | {cells[1]} |" in MODEL


@pytest.mark.parametrize(
    ("name", "layers", "d", "width", "heads", "added"),
    [
        ("SmolLM2-135M", 30, 576, 192, 3, 15_846_210),
        ("Qwen3-0.6B", 28, 1024, 512, 8, 65_616_992),
        ("Qwen3-1.7B", 28, 2048, 512, 8, 125_512_800),
    ],
)
def test_stated_parameter_counts_follow_from_the_stated_formula(
    name, layers, d, width, heads, added
):
    e = width // heads
    layer = 4 * d * width + 3 * heads * (2 * e) * e + 12 * width + 3 * width
    assert layers * (layer + 5 * heads * (d + 1) + d) == added
    assert f"| {name} | {layers} | {d} | {width} | {heads} | {added:,} |" in MODEL


def _default(value: ast.expr) -> object:
    """A field's default; None where the file says by name that it follows from other fields."""
    follows = isinstance(value, ast.Name) and value.id == "_FOLLOWS"
    return None if follows else ast.literal_eval(value)


def test_stated_configuration_is_that_of_the_model():
    # Read as text: importing the class would need the exporters' heavy dependencies.
    source = (ROOT / "exporters" / "allmem_exporters" / "model" / "config.py").read_text(
        encoding="utf-8"
    )
    (config,) = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef) and node.name == "AllMemConfig"
    )
    names = [
        (node.target.id, _default(node.value))
        for node in config.body
        if isinstance(node, ast.AnnAssign) and node.value and "ClassVar" not in ast.dump(node)
    ]
    at = {name: number for number, (name, _) in enumerate(names)}
    scales = names[at["embedding_scale"] : at["bos_token_id"]]  # the rest is as in any decoder
    fields = dict([names[0], *scales, *names[at["mem_width"] :]])
    documented = dict(re.findall(r"^\| `(\w+)` \| (`[^`]+`|none) \|", MODEL, re.MULTILINE))
    assert documented == {
        name: "none" if default is None else f"`{default}`" for name, default in fields.items()
    }


@pytest.mark.parametrize("kind", [Manifest, Backbone, Memory, FileRecord])
def test_every_manifest_key_is_documented(kind):
    for field in dataclasses.fields(kind):
        prefix = {Backbone: "backbone.", Memory: "memory.", FileRecord: "files.*."}.get(kind, "")
        assert re.search(rf"^\| `{re.escape(prefix + field.name)}`", FORMATS, re.MULTILINE)


def test_every_bound_of_the_manifest_is_documented():
    for name, (low, high) in BOUNDS.items():
        key = name if "." in name or name in ("window", "sinks", "chunk") else f"backbone.{name}"
        assert re.search(rf"^\| `{re.escape(key)}` \| {low:,} to {high:,} \|", FORMATS, re.M), key


def test_files_and_graph_tensors_are_documented():
    for name in (
        spec.GRAPH_FILE, spec.WEIGHTS_FILE, spec.MANIFEST_FILE, spec.TOKENIZER_FILE,
        spec.CHAT_TEMPLATE_FILE, spec.GENERATION_FILE, spec.METADATA_KEY,
        spec.INPUT_IDS, spec.POSITION, spec.LOGIT_INDEX, spec.LOGITS,
    ):  # fmt: skip
        assert f"`{name}`" in FORMATS, name
    state = StateSpec.build(window=1, sinks=0, cache="float16", **SIZES["Qwen3-0.6B"])
    for tensor in state.layers[0]:
        assert f"| `{tensor.name}` |" in FORMATS


class Zeros:
    """The least state that can be saved."""

    def __init__(self, state: StateSpec) -> None:
        self.arrays = {
            spec.past_name(layer, tensor.name): np.zeros(tensor.shape, tensor.element)
            for layer, tensor in state
        }

    def read(self, name: str) -> np.ndarray:
        return self.arrays[name]


def test_session_header_holds_exactly_the_documented_keys(tmp_path):
    state = StateSpec.build(window=2, sinks=0, cache="float16", **SIZES["Qwen3-0.6B"])
    state = dataclasses.replace(state, layers=state.layers[:1])
    owner = Owner("tiny", "0" * 64, "1" * 64, {"TTTMemory": 1}, 100)
    path = tmp_path / "some.allmem"
    read = SourceMark("some.txt", "3" * 16, offset=5, digest="4" * 64)
    place = Place(
        lead=" ", source=read, earlier=(read,), unread=b"half", text="2" * 64, system="Be brief."
    )
    save(path, owner, state, Zeros(state), place)
    header = read_header(path)
    section = FORMATS[FORMATS.index("## The session file") :]
    documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(documented) == sorted(header.metadata)
    assert f"| `format` | `{FORMAT}` |" in section
    assert f"| `format_version` | `{FORMAT_VERSION}` |" in section


def test_another_reader_of_safetensors_opens_a_session(tmp_path):
    numpy_reader = pytest.importorskip("safetensors.numpy")
    state = StateSpec.build(window=2, sinks=0, cache="float16", **SIZES["SmolLM2-135M"])
    state = dataclasses.replace(state, layers=state.layers[:2])
    tensors = Zeros(state)
    for array in tensors.arrays.values():
        array[...] = np.arange(array.size, dtype=array.dtype).reshape(array.shape) % 100
    path = tmp_path / "some.allmem"
    save(path, Owner("tiny", "0" * 64, "1" * 64, {}, 100), state, tensors, Place())
    loaded = numpy_reader.load_file(path)
    assert loaded.keys() == tensors.arrays.keys()
    assert all(np.array_equal(loaded[name], array) for name, array in tensors.arrays.items())
    assert all(loaded[name].dtype == array.dtype for name, array in tensors.arrays.items())
