"""What the runtime allows in a graph is what exports hold: neither less nor more."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx
import pytest
from tiny import tiny_config, write_tiny_checkpoint

from allmem_exporters.model.families import FAMILIES
from allmem_exporters.onnx.export import export
from allmem_runtime.files.graph_operators import ALLOWED
from allmem_runtime.files.package import open_package

Names = set[tuple[str, str]]

ODD: dict[str, dict[str, object]] = {
    "gelu": {"hidden_act": "gelu"},
    "gelu_pytorch_tanh": {"hidden_act": "gelu_pytorch_tanh"},
    "relu": {"hidden_act": "relu"},
    "caps": {"backbone": "gemma2", "attention_softcap": 2.0, "logits_softcap": 3.0},
}
"""Configurations by their names, of llama where no family is named."""

FORMS: tuple[tuple[str, dict[str, str]], ...] = (
    *((family, {}) for family in (*FAMILIES, *ODD)),
    ("llama", {"weights": "int8"}),
    ("qwen2", {"weights": "int4", "kv_cache_dtype": "float32"}),
    ("qwen3", {"weights": "int4", "matmul_kernel": "onnxruntime", "kv_cache_dtype": "int8"}),
    ("llama", {"weights": "int8", "matmul_kernel": "onnxruntime"}),
    ("llama", {"weights": "float16", "activations": "float16"}),
)


def names_of(nodes: Iterable[onnx.NodeProto]) -> Names:
    found: Names = set()
    for node in nodes:
        found.add((node.domain, node.op_type))
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                found |= names_of(graph.node)
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An export of each family, and of each way to store weights and caches."""
    folder = tmp_path_factory.mktemp("forms")
    made = []
    for number, (family, options) in enumerate(FORMS):
        checkpoint = folder / f"{family}-checkpoint"
        if not checkpoint.exists():
            changes = ODD.get(family, {"backbone": family})
            write_tiny_checkpoint(checkpoint, tiny_config(**changes, num_hidden_layers=1))
        export(checkpoint, folder / str(number), check=False, **options)  # type: ignore[arg-type]
        made.append(folder / str(number) / "model.onnx")
    return made


@pytest.mark.parametrize("name", ODD)
def test_runtime_opens_every_activation_and_cap(tmp_path: Path, name: str) -> None:
    config = tiny_config(**ODD[name], num_hidden_layers=1)
    write_tiny_checkpoint(tmp_path / "checkpoint", config)
    export(tmp_path / "checkpoint", tmp_path / "out", check=False)
    assert open_package(tmp_path / "out").manifest.name


@pytest.mark.long  # every other test of an export shows that neither is too strict
def test_the_list_is_what_exports_hold(exported: list[Path]) -> None:
    found: Names = set()
    for path in exported:
        open_package(path)
        model = onnx.load(path, load_external_data=False)
        found |= names_of(model.graph.node)
        for function in model.functions:
            found |= names_of(function.node)
    allowed = {(domain, name) for domain, names in ALLOWED.items() for name in names}
    assert found == {(domain, name) for domain, name in allowed if domain != "ai.onnx"}
