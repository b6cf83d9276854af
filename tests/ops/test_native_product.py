"""QuantisedMatMul: kernels of every instruction set against the reference, and refusals."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from native import available_cpu_paths
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

# Sums of some hundred float32 products, and of integers that are exact.
from sessions import asleep

from allmem_ops import DOMAIN, library
from allmem_ops.reference.product import (
    gated_inputs,
    interleaved,
    interleaved_scales,
    quantized_matmul,
    separated,
    weights_of,
)

TOLERANCE = 1e-5

SHAPES = [(32, 16), (64, 1), (96, 17), (576, 48), (160, 129), (33, 40), (1, 5), (576, 1029)]

FORMS = {
    "joined": {"joined": 50},
    "joined within a block": {"joined": 1},
    "gated": {"input_gate": "silu"},
    "two outputs": {"first_width": 32},
    "two outputs within a tile": {"first_width": 21},
    "all": {"joined": 103, "input_gate": "silu", "first_width": 5},
}
"""``joined`` is how much of a row x holds; what follows is x_more's."""


@pytest.fixture(params=["avx512vnni", "avx512", "avx2", "generic"])
def kernels(request, monkeypatch):
    if request.param not in available_cpu_paths():
        pytest.skip(f"this CPU has no {request.param}")
    monkeypatch.setenv("ALLMEM_CPU", request.param)
    return request.param


def product_graph(width, bits, *, bias, more=False, outputs=("y",), **attributes):
    """A graph of the one node; outputs that are empty texts are left out."""
    names = ["x", "numbers", "scales", *["bias" if bias else ""] * (bias or more)]
    names += ["x_more"] * more
    kinds = {"x": TensorProto.FLOAT, "numbers": TensorProto.UINT8, "scales": TensorProto.FLOAT16,
             "bias": TensorProto.FLOAT, "x_more": TensorProto.FLOAT}  # fmt: skip
    node = helper.make_node(
        "QuantisedMatMul", names, outputs, domain=DOMAIN, width=width, bits=bits, **attributes
    )
    return helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info(name, kinds[name], None) for name in names if name],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs if name],
    )


def session(width, bits, *, bias, threads=2, **form):
    return session_of(product_graph(width, bits, bias=bias, **form), threads)


def session_of(graph, threads=2):
    domains = (("", 21), (DOMAIN, 1), ("com.microsoft", 1))
    opsets = [helper.make_opsetid(*pair) for pair in domains]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = asleep(threads)
    library.register(options)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def arrays(inputs, width, bits, rows, seed=0, *, bias=False):
    rng = np.random.default_rng(seed)
    blocks = -(-inputs // 32)
    numbers = rng.integers(0, 1 << bits, (width, blocks, 32)).astype(np.uint8)
    scale = rng.uniform(1e-3, 1e-2, (width, blocks))
    kinds = (scale, rng.uniform(-0.1, 0.02, (width, blocks))) if bits == 4 else (scale,)
    x = rng.standard_normal((*rows, inputs)).astype(np.float32)
    found = {
        "x": x,
        "numbers": interleaved(numbers, bits),
        "scales": interleaved_scales(*kinds),
    }
    if bias:
        found["bias"] = rng.standard_normal(width).astype(np.float32)
    return found


def in_form(feed, joined=0, input_gate="none", first_width=0):
    """(feed, what ``product_graph`` takes, what the reference takes) of one of ``FORMS``."""
    feed = dict(feed)
    attributes = {"input_gate": input_gate, "first_width": first_width}
    if input_gate != "none":
        gates = np.random.default_rng(8).standard_normal(feed["x"].shape).astype(np.float32)
        feed["x"] = np.concatenate([3 * gates, feed["x"]], axis=-1)
    if joined:
        feed["x"], feed["x_more"] = (
            np.ascontiguousarray(part) for part in np.split(feed["x"], [joined], axis=-1)
        )
    outputs = ("y", "y_more") if first_width else ("y",)
    return feed, {"more": bool(joined), "outputs": outputs, **attributes}, attributes


def relative(have, want):
    return np.linalg.norm(have - want) / np.linalg.norm(want)


@pytest.mark.parametrize("bits", [4, 8])
def test_layout_is_undone(bits):
    numbers = np.random.default_rng(1).integers(0, 1 << bits, (37, 3, 32)).astype(np.uint8)
    stored = interleaved(numbers, bits)
    assert stored.shape == (3, 3, 64 * bits)
    assert np.array_equal(separated(stored, 37, bits), numbers)


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("inputs", "width"), SHAPES)
def test_kernel_agrees_with_the_reference(kernels, inputs, width, bits, bias):
    run = session(width, bits, bias=bias)
    for rows in [(1,), (2, 3), (15,), ()]:
        feed = arrays(inputs, width, bits, rows, bias=bias)
        (found,) = run.run(None, feed)
        (wanted,) = quantized_matmul(**feed, width=width, bits=bits)
        assert found.shape == (*rows, width)
        assert relative(found, wanted) < TOLERANCE


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("inputs", "width"), [(96, 40), (70, 33)])
def test_every_form_agrees_with_the_reference(kernels, inputs, width, bits, bias, form):
    run = None
    for rows in [(1,), (2, 3), (29,), (2, 0), ()]:
        feed, given, attributes = in_form(arrays(inputs, width, bits, rows, bias=bias), **form)
        run = run or session(width, bits, bias=bias, **given)
        found = run.run(None, feed)
        wanted = quantized_matmul(**feed, width=width, bits=bits, **attributes)
        assert [y.shape for y in found] == [y.shape for y in wanted]
        for have, want in zip(found, wanted, strict=True):
            assert not want.size or relative(have, want) < TOLERANCE


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("width", [5, 16 * 9 + 5, 16 * 16])
def test_row_is_the_same_to_the_last_bit_in_however_many_places_its_weights_are_read(
    kernels, monkeypatch, width, bits
):
    feed = arrays(200, width, bits, (1,), bias=True)
    found = []
    for streams in ("one", "several"):
        monkeypatch.setenv("ALLMEM_STREAMS", streams)
        found.append(session(width, bits, bias=True).run(None, feed)[0])
    assert relative(found[0], quantized_matmul(**feed, width=width, bits=bits)[0]) < TOLERANCE
    assert np.array_equal(*found)


def test_another_way_to_read_weights_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("ALLMEM_STREAMS", "two")
    with pytest.raises(Exception, match="ALLMEM_STREAMS names no way.*one and several"):
        session(32, 4, bias=False)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("form", ["joined", "joined within a block", "two outputs within a tile"])
def test_what_only_lies_elsewhere_is_the_same_to_the_last_bit(kernels, form, bits):
    plain = arrays(96, 40, bits, (29,), bias=True)
    (wanted,) = session(40, bits, bias=True).run(None, plain)
    feed, given, _ = in_form(plain, **FORMS[form])
    found = session(40, bits, bias=True, **given).run(None, feed)
    assert np.array_equal(np.concatenate(found, axis=-1), wanted)


@pytest.mark.parametrize("bits", [4, 8])
def test_gate_is_that_of_the_separate_nodes_but_for_the_rounding_of_silu(kernels, bits):
    """Both compute silu in float32, good to some 4e-7 of itself.

    What that moves across the middle between two of 255 levels is off by one level times its
    weight; all else only by the step of its block, which the product's tolerance allows for.
    """
    rows, inputs, width = 64, 96, 40
    feed, given, _ = in_form(arrays(inputs, width, bits, (rows,)), input_gate="silu")
    graph = product_graph(width, bits, bias=False)
    graph.node.insert(0, helper.make_node("Mul", ["active", "up"], ["gated"]))
    gate = helper.make_node("QuickGelu", ["gate"], ["active"], domain="com.microsoft", alpha=1.0)
    graph.node.insert(0, gate)
    graph.node.insert(0, helper.make_node("Split", ["x"], ["gate", "up"], axis=-1, num_outputs=2))
    graph.node[3].input[0] = "gated"
    (apart,) = session_of(graph).run(None, feed)
    (found,) = session(width, bits, bias=False, **given).run(None, feed)
    gated = gated_inputs(feed["x"]).astype(np.float64)
    step = np.abs(gated.reshape(rows, -1, 32)).max(axis=2).repeat(32, axis=1) / 127
    levels = np.abs(gated / step)
    near = np.abs(levels % 1 - 0.5) < 127 * 1e-6
    weights = weights_of(feed["numbers"], feed["scales"], width, bits)
    allowed = (near * step) @ np.abs(weights).T + TOLERANCE * np.abs(gated) @ np.abs(weights).T
    assert (np.abs(found - apart) <= allowed).all()
    assert near.mean() < 1e-3, "few enough for the test to mean something"


@pytest.mark.parametrize("bits", [4, 8])
def test_extreme_numbers_do_not_overflow(kernels, bits):
    feed = arrays(128, 32, bits, (9,))
    feed["numbers"][:] = 255
    feed["x"][:] = 1.0
    (found,) = session(32, bits, bias=False).run(None, feed)
    assert relative(found, quantized_matmul(**feed, width=32, bits=bits)[0]) < TOLERANCE
    feed["numbers"][:] = 0
    feed["x"][:] = -1.0
    (found,) = session(32, bits, bias=False).run(None, feed)
    assert relative(found, quantized_matmul(**feed, width=32, bits=bits)[0]) < TOLERANCE


@pytest.mark.parametrize("width", [70, 1029], ids=["one task", "many tasks"])
@pytest.mark.parametrize("bits", [4, 8])
def test_row_does_not_depend_on_the_rows_beside_it(kernels, bits, width):
    feed = arrays(576, width, bits, (141,), bias=True)
    run = session(width, bits, bias=True)
    (whole,) = run.run(None, feed)
    for first, count in ((0, 1), (1, 2), (3, 3), (5, 8), (7, 23), (13, 128), (140, 1)):
        (part,) = run.run(None, {**feed, "x": feed["x"][first : first + count]})
        assert np.array_equal(part, whole[first : first + count])
    (single,) = session(width, bits, bias=True, threads=1).run(None, feed)
    assert np.array_equal(single, whole)


@pytest.mark.parametrize("bits", [4, 8])
def test_row_of_the_whole_form_does_not_depend_on_the_rows_beside_it(kernels, bits):
    feed, given, _ = in_form(arrays(576, 70, bits, (141,), bias=True), **FORMS["all"])
    run = session(70, bits, bias=True, **given)
    whole = run.run(None, feed)
    for first, count in ((0, 1), (1, 2), (3, 3), (5, 8), (7, 23), (13, 128), (140, 1)):
        rows = {name: feed[name][first : first + count] for name in ("x", "x_more")}
        for part, every in zip(run.run(None, {**feed, **rows}), whole, strict=True):
            assert np.array_equal(part, every[first : first + count])
    single = session(70, bits, bias=True, threads=1, **given).run(None, feed)
    assert all(np.array_equal(a, b) for a, b in zip(single, whole, strict=True))


@pytest.mark.parametrize("bits", [4, 8])
def test_gate_keeps_what_is_not_finite_in_its_row_and_large_gates_open_or_shut(kernels, bits):
    feed, given, attributes = in_form(arrays(64, 20, bits, (6,), bias=True), input_gate="silu")
    x = feed["x"]
    x[0, 3], x[1, 70], x[2, 5] = np.nan, np.nan, np.inf
    x[3, :64], x[4, :64] = -1e4, 1e4
    (found,) = session(20, bits, bias=True, **given).run(None, feed)
    assert np.isnan(found[:3]).all()
    assert np.array_equal(found[3], feed["bias"]), "silu of a large negative number is nothing"
    (wanted,) = quantized_matmul(**feed, width=20, bits=bits, **attributes)
    assert relative(found[4:], wanted[4:]) < TOLERANCE


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_give_the_bias_and_what_is_not_finite_stays_in_its_row(kernels, bits):
    feed = arrays(64, 20, bits, (5,), bias=True)
    feed["x"][0] = 0
    feed["x"][1, 40] = np.nan
    feed["x"][2, 3] = np.inf
    feed["x"][4] = 1e-40
    (found,) = session(20, bits, bias=True).run(None, feed)
    assert np.array_equal(found[0], feed["bias"])
    assert np.isnan(found[1]).all()
    assert np.isnan(found[2]).all()
    assert np.isfinite(found[3]).all()
    assert np.array_equal(found[4], feed["bias"]), "hardly more than zeros"


def test_no_rows_give_no_rows(kernels):
    feed = arrays(64, 20, 4, (0,))
    (found,) = session(20, 4, bias=False).run(None, feed)
    assert found.shape == (0, 20)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("x", lambda a: a[:, :31], ["numbers", "[2, 2, 256]", "[2, 1, 256]"]),
        ("x", lambda a: a[:, :0], ["x", "at least 1"]),
        ("numbers", lambda a: a[:1], ["numbers", "[1, 2, 256]", "[2, 2, 256]"]),
        ("numbers", lambda a: a[:, :, 1:], ["numbers", "[2, 2, 255]"]),
        ("scales", lambda a: a[:, :, :1], ["scales", "[2, 2, 1, 16]"]),
        ("bias", lambda a: a[1:], ["bias", "[19]", "[20]"]),
    ],
)
def test_bad_shape_is_refused_by_operator_and_input(name, change, words):
    feed = arrays(64, 20, 4, (3,), bias=True)
    feed[name] = np.ascontiguousarray(change(feed[name]))
    with pytest.raises(InvalidArgument) as caught:
        session(20, 4, bias=True).run(None, feed)
    for word in ("QuantisedMatMul", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("x_more", lambda a: a[1:], ["x_more", "[2, 78]", "[..., more]", "[3, ?]"]),
        ("x_more", lambda a: a[0], ["x_more", "[78]", "[3, ?]"]),
        ("x_more", lambda a: a[:, :0], ["x_more", "at least 1"]),
        ("x_more", lambda a: a[:, 1:], ["input_gate", "127 inputs"]),
        ("x", lambda a: np.concatenate([a, a], axis=1), ["numbers", "[2, 3, 256]"]),
    ],
)
def test_bad_shape_of_a_form_is_refused_by_operator_and_input(name, change, words):
    feed, given, _ = in_form(arrays(64, 20, 4, (3,)), joined=50, input_gate="silu")
    feed[name] = np.ascontiguousarray(change(feed[name]))
    with pytest.raises(InvalidArgument) as caught:
        session(20, 4, bias=False, **given).run(None, feed)
    for word in ("QuantisedMatMul", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("width", "bits", "form", "word"),
    [
        (0, 4, {}, "width"),
        (8, 5, {}, "bits"),
        (8, 4, {"input_gate": "gelu"}, "'input_gate' is 'gelu'; allowed: none, silu"),
        (8, 4, {"first_width": 8, "outputs": ("y", "y_more")}, "'first_width' is 8"),
        (8, 4, {"first_width": -1}, "'first_width' is -1"),
        (8, 4, {"first_width": 3}, "first_width is 3, and the output y_more is missing"),
        (8, 4, {"first_width": 3, "outputs": ("y", "")}, "the output y_more is missing"),
        (8, 4, {"outputs": ("y", "y_more")}, "first_width is 0, and there is an output y_more"),
    ],
)
def test_bad_attribute_is_refused(width, bits, form, word):
    with pytest.raises(Exception, match=f"QuantisedMatMul: .*{word}"):
        session(width, bits, bias=False, **form)


def test_second_output_may_be_named_by_an_empty_text(kernels):
    feed = arrays(64, 20, 4, (3,))
    named, unnamed = (
        session(20, 4, bias=False, outputs=outputs).run(None, feed)
        for outputs in (("y", ""), ("y",))
    )
    assert np.array_equal(named[0], unnamed[0])
