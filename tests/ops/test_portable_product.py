"""The function body of QuantisedMatMul against the reference, run without our library."""

from __future__ import annotations

import onnxruntime
import pytest
from onnx import TensorProto, helper
from test_native_product import arrays, relative

from allmem_exporters.product_function import WIDE, product_function
from allmem_ops import DOMAIN
from allmem_ops.reference.product import quantised_matmul, weights_of


def run(feed, width, bits, *, wide=False):
    kinds = {"x": TensorProto.FLOAT, "numbers": TensorProto.UINT8, "scales": TensorProto.FLOAT16}
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


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [(1, 1), (1, 7), (3,), (1, 0)], ids=str)
@pytest.mark.parametrize(("inputs", "width"), [(32, 16), (96, 17), (64, 40)])
def test_body_agrees_with_the_reference(inputs, width, rows, bits):
    feed = arrays(inputs, width, bits, rows)
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
