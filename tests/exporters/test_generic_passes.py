"""Passes over traced graphs of the generic path: what they take together, and what they leave."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import parser
from onnx.reference import ReferenceEvaluator

from allmem_exporters.convert.conversion import convert
from allmem_exporters.generic.matrices import Joined, Reordered, Weight, weights_in
from allmem_exporters.generic.passes.activations import activations_as_nodes
from allmem_exporters.generic.passes.norms import norms_as_nodes, sums_into_norms
from allmem_exporters.generic.passes.products import add_in_products, merge_products
from allmem_exporters.generic.passes.views import drop_views
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.model.modeling import pieces
from allmem_exporters.onnx.export import export
from allmem_exporters.onnx.graph_runner import GraphRunner
from allmem_exporters.quantization.blocks import InMemory
from allmem_exporters.sources import folder as folder_source
from allmem_runtime.spec import GRAPH_FILE
from benchmarks.families.tiny import write_tiny_decoder

MEMORY = MemoryOptions(window=32, sinks=4, chunk=16, mem_width=16)
EXACT = replace(MEMORY, cache_dtype="float32")
LENGTH = 70


def node_count(model: Path) -> int:
    return len(onnx.load(model / GRAPH_FILE, load_external_data=False).graph.node)


def logits(model: Path, manifest: object) -> np.ndarray:
    ids = np.random.default_rng(0).integers(0, 97, LENGTH).tolist()
    runner = GraphRunner(model, manifest.state, native=True)  # type: ignore[attr-defined]
    found, _ = runner.read(ids, pieces(0, LENGTH, 16), range(LENGTH))
    return found


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A llama converted for the packed graph, and by transformers' own code."""
    root = tmp_path_factory.mktemp("llama")
    # Blocks of 32 inputs that hold nothing of the memory, whose first weights are other ones.
    write_tiny_decoder(root / "source", "llama", hidden_size=64, intermediate_size=96)
    packed = convert(root / "source", root / "packed", EXACT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder_source, "FAMILIES", {})
        generic = convert(root / "source", root / "generic", EXACT)
    return packed, generic


@pytest.mark.parametrize("weights", ["float32", "int8", "int4"])
def test_llama_has_as_few_nodes_on_the_generic_path_as_packed(
    both_ways: tuple[Path, Path], tmp_path: Path, weights: str
) -> None:
    found = []
    for checkpoint in both_ways:
        model = tmp_path / checkpoint.name
        manifest = export(checkpoint, model, weights=weights, check=False)
        found.append((node_count(model), logits(model, manifest)))
    (packed, wanted), (generic, got) = found
    assert generic <= packed
    difference = np.square(got - wanted).mean() / np.square(wanted).mean()
    # The matrices are rounded alike; an input in 8 bits is rounded to a neighbor here and there.
    assert difference**0.5 < (1e-5 if weights == "float32" else 1e-2)


@pytest.mark.parametrize(
    ("kind", "most"), [("gpt_neox", 39), ("phi", 38), ("ernie4_5", 37), ("stablelm", 37)]
)
def test_other_orders_of_heads_and_coordinates_cost_no_node(
    tmp_path: Path, kind: str, most: int
) -> None:
    write_tiny_decoder(tmp_path / "source", kind)
    checkpoint = convert(tmp_path / "source", tmp_path / "checkpoint", MEMORY, check=False)
    export(checkpoint, tmp_path / "model")  # compared with PyTorch
    assert node_count(tmp_path / "model") <= most


def model_of(text: str) -> ir.Model:
    whole = f'<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]> {text}'
    model = ir.serde.deserialize_model(
        onnx.shape_inference.infer_shapes(parser.parse_model(whole), data_prop=True)
    )
    named = list(model.graph.initializers.values())
    model.graph.initializers.clear()
    for value in named:  # names of weights have points in them, which the parser does not read
        value.name = str(value.name).replace("__", ".")
        model.graph.register_initializer(value)
    return model


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


RMS = """
    g (float[1, time, 8] x) => (float[1, time, 8] y)
    <float two = {2.0}, float epsilon = {0.001}, int64[1] last = {-1},
     float[8] gain = {1, 2, 3, 4, 5, 6, 7, 8}>
    {
        square = Pow(x, two)
        mean = ReduceMean(square, %s)
        total = Add(mean, epsilon)
        root = Sqrt(total)
        quotient = Div(%s, root)
        normed = Mul(gain, quotient)
        y = Neg(normed)
    }
"""


def test_rms_norm_becomes_one_node() -> None:
    model = model_of(RMS % ("last", "x"))
    norms_as_nodes(model)
    ir.passes.common.RemoveUnusedNodesPass()(model)
    assert operators(model) == {"SimplifiedLayerNormalization": 1, "Neg": 1}
    norm = model.graph[0]
    assert norm.attributes.get_float("epsilon") == pytest.approx(0.001)
    assert norm.inputs[1] is not None and norm.inputs[1].name == "gain"


@pytest.mark.parametrize(("axes", "divided"), [("two_axes", "x"), ("last", "square")])
def test_what_only_looks_like_an_rms_norm_stays(axes: str, divided: str) -> None:
    text = (RMS % (axes, divided)).replace("<float two", "<int64[2] two_axes = {1, 2}, float two")
    model = model_of(text)
    norms_as_nodes(model)
    assert operators(model)["Sqrt"] == 1


GELU = """
    g (float[1, time, 8] x) => (float[1, time, 8] y)
    <float three = {3.0}, float small = {0.044715}, float root = {0.7978845608}, float one = {1.0},
     float half = {%s}>
    {
        cube = Pow(x, three)
        scaled = Mul(cube, small)
        total = Add(x, scaled)
        inner = Mul(total, root)
        tanh = Tanh(inner)
        raised = Add(tanh, one)
        halved = Mul(x, half)
        active = Mul(halved, raised)
        y = Neg(active)
    }
"""


def test_gelu_by_tanh_becomes_one_node_that_computes_the_same() -> None:
    model = model_of(GELU % "0.5")
    x = np.linspace(-4, 4, 24, dtype=np.float32).reshape(1, 3, 8)
    (before,) = ReferenceEvaluator(ir.serde.serialize_model(model)).run(None, {"x": x})
    activations_as_nodes(model.graph)
    ir.passes.common.RemoveUnusedNodesPass()(model)
    assert operators(model) == {"Gelu": 1, "Neg": 1}
    (after,) = ReferenceEvaluator(ir.serde.serialize_model(model)).run(None, {"x": x})
    assert np.allclose(before, after, atol=1e-6)


def test_another_activation_by_tanh_stays() -> None:
    model = model_of(GELU % "0.6")
    activations_as_nodes(model.graph)
    assert operators(model)["Tanh"] == 1


def test_sum_that_two_norms_read_is_computed_once() -> None:
    model = model_of("""
        g (float[1, time, 2] x, float[1, time, 2] more) => (float[1, time, 2] y)
        <float[2] gain = {1, 2}, float[2] other = {3, 4}>
        {
            total = Add(x, more)
            one = LayerNormalization <axis = -1, epsilon = 0.001> (total, gain)
            two = LayerNormalization <axis = -1, epsilon = 0.01> (total, other)
            normed = Add(one, two)
            y = Add(total, normed)
        }
    """)
    sums_into_norms(model.graph)
    assert operators(model) == {"SkipLayerNormalization": 1, "LayerNormalization": 1, "Add": 2}
    assert onnx.checker.check_model(ir.serde.serialize_model(model)) is None


PRODUCTS = """
    g (float[1, time, 2] x, float[1, time, 2] z) => (float[1, time, 3] y, float[1, time, 3] t)
    <float[2, 3] a__one__weight = {1, 2, 3, 4, 5, 6},
     float[2, 3] a__two__weight = {7, 8, 9, 1, 2, 3},
     float[3] bias = {1, 2, 3}, float[2, 3] b__one__weight = {1, 3, 5, 7, 9, 2}>
    {
        one = MatMul(x, a__one__weight)
        two = MatMul(x, a__two__weight)
        biased = Add(two, bias)
        y = Mul(one, biased)
        far = MatMul(%s, b__one__weight)
        t = %s
    }
"""


def run(model: ir.Model, matrices: dict[str, object]) -> list[np.ndarray]:
    for name, matrix in matrices.items():
        rows, _ = matrix.shape  # type: ignore[attr-defined]
        values = matrix.rows(0, rows).T.contiguous().numpy()  # type: ignore[attr-defined]
        model.graph.initializers[name].const_value = ir.Tensor(values, name=name)
    x = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    evaluated = ReferenceEvaluator(ir.serde.serialize_model(model))
    found: list[np.ndarray] = evaluated.run(None, {"x": x, "z": x + 1})
    return found


def matrices_of(model: ir.Model) -> dict[str, object]:
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    return {
        name: InMemory(torch.from_numpy(tensor.numpy().T.copy()))
        for name, tensor in tensors.items()
        if tensor is not None and name.endswith("weight")
    }


def test_products_of_one_module_and_one_input_become_one_with_all_biases() -> None:
    model = model_of(PRODUCTS % ("x", "Relu(far)"))
    matrices = matrices_of(model)
    wanted = run(model, matrices)
    merged = merge_products(model, matrices, [])
    assert sorted(merged) == ["a.one+two.weight", "b.one.weight"]
    assert operators(model)["MatMul"] == 2
    for found, one in zip(run(model, merged), wanted, strict=True):
        assert np.array_equal(found, one)


def test_products_that_are_added_become_one_and_others_stay() -> None:
    text = PRODUCTS.replace("t = %s", "near = MatMul(z, b__c__weight)\nt = %s").replace(
        "bias = {1, 2, 3},", "bias = {1, 2, 3}, float[2, 3] b__c__weight = {2, 4, 6, 8, 1, 3},"
    )
    model = model_of(text % ("x", "Add(far, near)"))
    matrices = matrices_of(model)
    wanted = run(model, matrices)
    merged = add_in_products(model, matrices)
    assert sorted(merged) == ["a.one.weight", "a.two.weight", "b.one+c.weight"]
    for found, one in zip(run(model, merged), wanted, strict=True):
        assert np.array_equal(found, one)


def test_views_that_are_undone_are_skipped_and_others_stay() -> None:
    model = model_of("""
        g (float[1, time, 6] x) => (float[1, time, 6] y, float[1, time, 6] z)
        <int64[4] heads = {1, -1, 2, 3}, int64[3] flat = {1, -1, 6}, int64[1] one = {0},
         int64[1] two = {1}, int64[1] end = {3}, int64[1] axis = {3}>
        {
            apart = Reshape(x, heads)
            turned = Transpose <perm = [0, 2, 1, 3]> (apart)
            first = Slice(turned, one, two, axis)
            second = Slice(turned, two, end, axis)
            again = Concat <axis = -1> (first, second)
            swapped = Concat <axis = -1> (second, first)
            back = Transpose <perm = [0, 2, 1, 3]> (again)
            other = Transpose <perm = [0, 2, 1, 3]> (swapped)
            joined = Reshape(back, flat)
            kept = Reshape(other, flat)
            y = Relu(joined)
            z = Relu(kept)
        }
    """)
    x = np.arange(12, dtype=np.float32).reshape(1, 2, 6)
    evaluated = ReferenceEvaluator(ir.serde.serialize_model(model))
    wanted = evaluated.run(None, {"x": x})
    for value in (model.graph.inputs[0], *(out for node in model.graph for out in node.outputs)):
        if value.shape is not None and len(value.shape) == 3:
            value.shape = ir.Shape([1, "time", 6])
        elif value.shape is not None and value.shape[3] == 3:
            value.shape = ir.Shape([1, 2, "time", 3] if value.shape[1] == 2 else [1, "time", 2, 3])
    drop_views(model.graph)
    relu = next(node for node in model.graph if node.op_type == "Relu")
    assert relu.inputs[0] is model.graph.inputs[0]
    found = ReferenceEvaluator(ir.serde.serialize_model(model)).run(None, {"x": x})
    assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


class _Weights:
    """Two weights with numbers that all differ."""

    values = {
        "one": torch.arange(12.0).reshape(4, 3),
        "two": 20 + torch.arange(6.0).reshape(2, 3),
    }

    def rows(self, name: str, first: int, end: int) -> torch.Tensor:
        return self.values[name][first:end]

    def tensor(self, name: str) -> torch.Tensor:
        return self.values[name]


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_are_found_again_in_what_is_made_of_them(axis: int) -> None:
    given = _Weights()
    one, two = (Weight(given, name, tuple(t.shape)) for name, t in given.values.items())  # type: ignore[arg-type]
    joined = Joined((Reordered(one, (2, 3, 0, 1)), two)) if axis == 0 else Joined((one, one), 1)
    order = (5, 0, 1, 4, 2, 3) if axis == 0 else (3, 1, 2, 0)
    matrix = Reordered(joined, order)
    whole = matrix.rows(0, matrix.shape[0])
    assert torch.equal(torch.cat([matrix.rows(0, 2), matrix.rows(2, matrix.shape[0])]), whole)
    for placed in weights_in(matrix):
        assert torch.equal(placed.out_of(whole), given.tensor(placed.weight.name))
