"""QuantisedMatMul: kernels of every instruction set against the reference, and refusals."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from native import available_cpu_paths
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from allmem_ops import DOMAIN, library
from allmem_ops.reference.product import (
    interleaved,
    interleaved_scales,
    quantised_matmul,
    separated,
)

# Sums of some hundred float32 products, and of whole numbers that are exact.
TOLERANCE = 1e-5

SHAPES = [(32, 16), (64, 1), (96, 17), (576, 48), (160, 129), (33, 40), (1, 5), (576, 1029)]


@pytest.fixture(params=["avx512vnni", "avx512", "avx2", "generic"])
def kernels(request, monkeypatch):
    if request.param not in available_cpu_paths():
        pytest.skip(f"this CPU has no {request.param}")
    monkeypatch.setenv("ALLMEM_CPU", request.param)
    return request.param


def session(width, bits, *, bias, threads=2):
    names = ["x", "numbers", "scales"] + ["bias"] * bias
    kinds = {"x": TensorProto.FLOAT, "numbers": TensorProto.UINT8,
             "scales": TensorProto.FLOAT16, "bias": TensorProto.FLOAT}  # fmt: skip
    node = helper.make_node("QuantisedMatMul", names, ["y"], domain=DOMAIN, width=width, bits=bits)
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info(name, kinds[name], None) for name in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
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
        wanted = quantised_matmul(**feed, width=width, bits=bits)
        assert found.shape == (*rows, width)
        assert relative(found, wanted) < TOLERANCE


@pytest.mark.parametrize("bits", [4, 8])
def test_extreme_numbers_do_not_overflow(kernels, bits):
    feed = arrays(128, 32, bits, (9,))
    feed["numbers"][:] = 255
    feed["x"][:] = 1.0
    (found,) = session(32, bits, bias=False).run(None, feed)
    assert relative(found, quantised_matmul(**feed, width=32, bits=bits)) < TOLERANCE
    feed["numbers"][:] = 0
    feed["x"][:] = -1.0
    (found,) = session(32, bits, bias=False).run(None, feed)
    assert relative(found, quantised_matmul(**feed, width=32, bits=bits)) < TOLERANCE


@pytest.mark.parametrize("width", [70, 1029], ids=["one task", "many tasks"])
@pytest.mark.parametrize("bits", [4, 8])
def test_row_does_not_depend_on_the_rows_beside_it(kernels, bits, width):
    feed = arrays(576, width, bits, (141,), bias=True)
    run = session(width, bits, bias=True)
    (whole,) = run.run(None, feed)
    for first, count in ((0, 1), (1, 2), (3, 3), (5, 8), (13, 128), (140, 1)):
        (part,) = run.run(None, {**feed, "x": feed["x"][first : first + count]})
        assert np.array_equal(part, whole[first : first + count])
    (single,) = session(width, bits, bias=True, threads=1).run(None, feed)
    assert np.array_equal(single, whole)


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


@pytest.mark.parametrize(("width", "bits", "word"), [(0, 4, "width"), (8, 5, "bits")])
def test_bad_attribute_is_refused(width, bits, word):
    with pytest.raises(Exception, match=f"QuantisedMatMul: .*{word}"):
        session(width, bits, bias=False)
