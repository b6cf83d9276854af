"""No graph file, however damaged or malicious, does more than be refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import stand_in
from hostile.model_folders.spoiling import Data, refused, rewrite
from onnx import TensorProto, helper

from allmem_runtime import Model, ModelFileError, load, spec


def test_graph_cut_anywhere_is_refused(folder: Path) -> None:
    path = folder / spec.GRAPH_FILE
    good = path.read_bytes()
    for place in [*range(1, 300), *range(300, len(good), 211), len(good) - 1]:
        path.write_bytes(good[:place])
        with pytest.raises(ModelFileError, match=r"model\.onnx"):
            load(folder, device="cpu", operators="portable")


def test_flipped_bits_of_the_graph_never_crash(folder: Path, toy: Model) -> None:
    """A flipped bit may give another valid graph; then the model opens, else it is refused."""
    path = folder / spec.GRAPH_FILE
    good = path.read_bytes()
    draw = random.Random(1)
    refusals = 0
    for _ in range(150):
        data = bytearray(good)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try:
            load(folder, device="cpu", operators="portable", threads=1)
        except ModelFileError as error:
            refusals += 1
            assert str(folder) in error.message
    assert refusals > 30


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 1000, id="zeros"),
        pytest.param(b"PK\x03\x04" * 50, id="zip"),
        pytest.param(b"\x80\x04\x95" + b"x" * 200, id="pickle"),
        pytest.param(b"GGUF" + b"\0" * 200, id="gguf"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", id="pointer to a large file"),
        pytest.param(b"<!DOCTYPE html><html></html>", id="error page"),
        pytest.param(b"\x3a\xff\xff\xff\xff\x0f", id="graph of 4 GB in 6 bytes"),
        pytest.param(b"\x08" + b"\xff" * 20, id="endless number"),
        pytest.param(b"\x3a\x02\x0a\x00", id="graph with one empty node"),
        pytest.param(b"\x3a\x04\x0b\x0c\x0b\x0c", id="groups"),
    ],
)
def test_what_is_no_graph_is_refused(folder: Path, data: bytes) -> None:
    (folder / spec.GRAPH_FILE).write_bytes(data)
    refused(folder)


def test_random_bytes_are_refused(folder: Path) -> None:
    draw = random.Random(2)
    for _ in range(300):
        (folder / spec.GRAPH_FILE).write_bytes(draw.randbytes(1 + draw.randrange(200)))
        refused(folder)


def test_cyclic_graph_is_refused(folder: Path) -> None:
    model = onnx.load(folder / spec.GRAPH_FILE, load_external_data=False)
    nodes = list(model.graph.node)
    nodes[0].input[0] = nodes[-1].output[0]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    (folder / spec.GRAPH_FILE).write_bytes(model.SerializeToString())
    assert "before anything makes it" in refused(folder).message


def test_tensor_whose_number_of_axes_the_position_decides_is_refused(folder: Path) -> None:
    """The first step would join it, empty, with another, at which ONNX Runtime ends the process."""
    model = onnx.load(folder / spec.GRAPH_FILE, load_external_data=False)
    model.graph.initializer.append(helper.make_tensor("none", TensorProto.INT64, [0], []))
    at = next(i for i, node in enumerate(model.graph.node) if "guarded" in node.output)
    model.graph.node[at].input[0] = "joined"
    for operator, inputs, output, attributes in (
        ("Squeeze", ["position"], "begin", {}),
        ("Add", ["begin", "one"], "rank", {}),
        ("Range", ["zero", "rank", "one"], "axes", {}),
        ("Mul", ["axes", "zero"], "lengths", {}),
        ("Reshape", ["none", "lengths"], "odd", {"allowzero": 1}),
        ("Concat", ["odd", "weighted"], "joined", {"axis": 0}),
    ):
        node = helper.make_node(operator, inputs, [output], **attributes)
        model.graph.node.insert(at, node)
        at += 1
    (folder / spec.GRAPH_FILE).write_bytes(model.SerializeToString())
    assert "'Reshape' of the domain '' makes a tensor of a number of axes that nothing tells" in (
        refused(folder).message
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda g: g.input.pop(1), "reads 'position' before anything", id="input missing"
        ),
        pytest.param(
            lambda g: g.input.append(
                helper.make_tensor_value_info("past.9.key", TensorProto.FLOAT, [1])
            ),
            "'past.9.key' is unknown",
            id="input too many",
        ),
        pytest.param(lambda g: g.output.pop(3), "'present.0.weights' is missing", id="output gone"),
        pytest.param(
            lambda g: g.input.insert(
                0, helper.make_tensor_value_info("extra", TensorProto.INT64, [1])
            ),
            "'extra' is unknown",
            id="input of no meaning",
        ),
    ],
)
def test_graph_that_is_not_its_manifests_is_refused(
    folder: Path, change: Callable[[Any], None], message: str
) -> None:
    model = onnx.load(folder / spec.GRAPH_FILE, load_external_data=False)
    change(model.graph)
    (folder / spec.GRAPH_FILE).write_bytes(model.SerializeToString())
    assert message in refused(folder).message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"window": 60}, "'past.0.key' has the shape", id="window"),
        pytest.param({"cache": "float32"}, "'past.0.key' is tensor(float16)", id="cache type"),
        pytest.param(
            {"memory": stand_in.config.Memory(1, 4, 9, 4)}, "'past.0.weights'", id="hidden"
        ),
        pytest.param(
            {"backbone": stand_in.config.Backbone("llama", 3, 8, 16, 2, 1, 4, 330, 2048)},
            "'past.2.key' is missing",
            id="layers",
        ),
        pytest.param(
            {"backbone": stand_in.config.Backbone("llama", 2, 8, 16, 2, 1, 4, 331, 2048)},
            "'logits' has the shape",
            id="vocabulary",
        ),
    ],
)
def test_manifest_that_is_not_its_graphs_is_refused(
    folder: Path, changes: Data, message: str
) -> None:
    files = {
        name: (folder / name).read_bytes()
        for name in ("tokenizer.json", "model.onnx.data", "generation_config.json")
    }
    rewrite(folder, stand_in.manifest(files, **changes).to_json())
    assert message in refused(folder).message


def test_state_whose_size_the_graph_leaves_open_is_refused(folder: Path) -> None:
    """Else the manifest alone would say how much memory a session takes."""
    path = folder / spec.GRAPH_FILE
    model = onnx.load(path, load_external_data=False)
    state = next(value for value in model.graph.input if value.name == "past.0.key")
    state.type.tensor_type.shape.dim[2].dim_param = "rows"
    path.write_bytes(model.SerializeToString())
    error = refused(folder)
    assert "input 'past.0.key' has the shape [1, 1, 'rows', 4]" in error.message


@pytest.mark.parametrize("kind", ["Loop", "Scan", "ConstantOfShape", "Expand", "Tile", "CumSum"])
@pytest.mark.parametrize("where", ["graph", "branch", "function"])
def test_operator_that_no_export_holds_is_refused_by_name(
    folder: Path, kind: str, where: str
) -> None:
    model = onnx.load(folder / spec.GRAPH_FILE, load_external_data=False)
    node = helper.make_node(kind, ["position"], ["odd"])
    if where == "graph":
        model.graph.node.append(node)
    elif where == "branch":
        inner = helper.make_graph([node], "inner", [], [])
        chosen = helper.make_node("If", ["position"], ["odd"], then_branch=inner, else_branch=inner)
        model.graph.node.append(chosen)
    else:
        opsets = [helper.make_opsetid("", 21)]
        body = helper.make_function("ai.allmem", "TTTMemory", ["position"], ["odd"], [node], opsets)
        model.functions.append(body)
    (folder / spec.GRAPH_FILE).write_bytes(model.SerializeToString())
    assert f"a node of the operator {kind!r} of the domain ''" in refused(folder).message
