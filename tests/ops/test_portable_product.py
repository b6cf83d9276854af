"""The function body of QuantisedMatMul against the reference, run without our library."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from test_native_product import arrays, relative

from allmem_exporters.product_function import WIDE, product_function
from allmem_ops import DOMAIN
from allmem_ops.reference.product import quantised_matmul, weights_of


def run(feed, width, bits, *, wide=False):
    kinds = {
        "x": TensorProto.FLOAT,
        "numbers": TensorProto.UINT8,
        "scales": TensorProto.FLOAT16,
        "bias": TensorProto.FLOAT,
    }
    kinds = {key: kinds[key] for key in feed}
    name = WIDE if wide else "QuantisedMatMul"
    graph = helper.make_graph(
        [helper.make_node(name, list(kinds), ["y"], domain=DOMAIN, width=width, bits=bits)],
        "product",
        [helper.make_tensor_value_info(key, kind, None) for key, kind in kinds.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    model.functions.append(product_function(wide=wide))
    found = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return found.run(None, feed)[0]


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [(1, 1), (1, 7), (3,), (1, 0), ()], ids=str)
@pytest.mark.parametrize(("inputs", "width"), [(32, 16), (96, 17), (64, 40), (33, 5), (7, 16)])
def test_body_agrees_with_the_reference(inputs, width, rows, bits, bias):
    feed = arrays(inputs, width, bits, rows, bias=bias)
    found = run(feed, width, bits)
    assert found.shape == (*rows, width)
    if found.size:
        assert relative(found, quantised_matmul(**feed, width=width, bits=bits)) < 1e-5


@pytest.mark.parametrize("bits", [4, 8])
def test_wide_body_takes_inputs_as_they_are(bits):
    feed = arrays(96, 17, bits, (1, 5))
    exact = feed["x"] @ weights_of(feed["numbers"], feed["scales"], 17, bits).T
    assert relative(run(feed, 17, bits, wide=True), exact) < 1e-6
    assert relative(run(feed, 17, bits), exact) > 1e-4


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_and_what_is_hardly_more_give_the_bias_and_nan_stays_in_its_row(bits):
    feed = arrays(64, 20, bits, (5,), bias=True)
    feed["x"][0] = 0
    feed["x"][1, 40] = np.nan
    feed["x"][2, 3] = np.inf
    feed["x"][3] = 1e-40
    found = run(feed, 20, bits)
    assert np.array_equal(found[0], feed["bias"])
    assert np.isnan(found[1]).all()
    assert np.isnan(found[2]).all()
    assert np.array_equal(found[3], feed["bias"])
    assert np.isfinite(found[4]).all()
