"""Which exports may be captured as CUDA graphs, and how their manifests say so."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir
import pytest
from lively import FAMILIES, write_lively

from allmem_exporters.onnx.capture import captured
from allmem_exporters.onnx.export import export
from allmem_runtime.config import Manifest
from allmem_runtime.engine.captured_families import may_be_captured
from allmem_runtime.errors import ModelFileError
from allmem_runtime.spec import MANIFEST_FILE


def node(operator: str, inputs: int = 1, outputs: int = 1, domain: str = "") -> ir.Node:
    given = [ir.Value(name=str(at)) for at in range(inputs)]
    return ir.node(operator, given, domain=domain, num_outputs=outputs)


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (node("Split", outputs=4), True),
        (node("Split", outputs=5), False),
        (node("Concat", inputs=5), True),
        (node("Concat", inputs=6), False),
        (node("Range", inputs=3), False),
        (node("SkipLayerNormalization", 4, 4, "com.microsoft"), True),
        (node("MatMulNBits", 3, 1, "com.microsoft"), False),
        (node("SlidingWindowAttention", 7, 3, "ai.allmem"), True),
    ],
    ids=lambda value: getattr(value, "op_type", str(value)),
)
def test_graph_is_captured_if_no_node_reads_sizes_from_the_host(
    last: ir.Node, expected: bool
) -> None:
    assert captured([node("MatMul", 2), last], "gpt_neox") is expected


def test_manifest_of_an_older_family_stays_as_it_was(tmp_path: Path) -> None:
    manifest = export(write_lively(tmp_path / "c"), tmp_path / "m", check=False)
    assert manifest.captured is None and may_be_captured(manifest)
    assert "captured" not in json.loads((tmp_path / "m" / MANIFEST_FILE).read_text())


def test_manifest_of_another_family_says_what_its_graph_allows(tmp_path: Path) -> None:
    config = FAMILIES["olmo3, norms behind, two ropes"]
    checkpoint = write_lively(tmp_path / "c", config)
    for activations, expected in (("float32", True), ("float16", False)):
        folder = tmp_path / activations
        manifest = export(checkpoint, folder, activations=activations, check=False)
        assert manifest.captured is expected and may_be_captured(manifest) is expected
        assert Manifest.from_json((folder / MANIFEST_FILE).read_text(), "again") == manifest
    values = json.loads((folder / MANIFEST_FILE).read_text())
    del values["captured"]  # as it was written before there was a choice
    assert not may_be_captured(Manifest.from_json(json.dumps(values), "old"))
    with pytest.raises(ModelFileError, match="captured is 'yes'; it must be true or false"):
        Manifest.from_json(json.dumps({**values, "captured": "yes"}), "odd")
