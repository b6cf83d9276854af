"""The function body of QuantisedMatMul against the reference, run without our library."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import helper
from sessions import asleep
from test_native_product import FORMS, arrays, in_form, product_graph, relative

from allmem_exporters.onnx.quantized_matmul_function import WIDE, product_function
from allmem_ops import DOMAIN
from allmem_ops.reference.product import quantized_matmul, weights_of


def run(feed, width, bits, *, wide=False):
    return run_all(feed, width, bits, wide=wide)[0]


def run_all(feed, width, bits, *, wide=False, **form):
    given = {"outputs": ("y", ""), **form}
    if len(given["outputs"]) == 1:
        given["outputs"] = ("y", "")  # as exports write it
    graph = product_graph(width, bits, bias="bias" in feed, **given)
    graph.node[0].op_type = WIDE if wide else "QuantisedMatMul"
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    model.functions.append(product_function(wide=wide))
    found = onnxruntime.InferenceSession(
        model.SerializeToString(), asleep(), providers=["CPUExecutionProvider"]
    )
    return found.run(None, feed)


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [(1, 1), (1, 7), (3,), (1, 0), ()], ids=str)
@pytest.mark.parametrize(("inputs", "width"), [(32, 16), (96, 17), (64, 40), (33, 5), (7, 16)])
def test_body_agrees_with_the_reference(inputs, width, rows, bits, bias):
    feed = arrays(inputs, width, bits, rows, bias=bias)
    found = run(feed, width, bits)
    assert found.shape == (*rows, width)
    if found.size:
        assert relative(found, quantized_matmul(**feed, width=width, bits=bits)[0]) < 1e-5


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("rows", [(1, 7), (1, 0), ()], ids=str)
def test_every_form_of_the_body_agrees_with_the_reference(rows, form, bits, bias):
    feed, given, attributes = in_form(arrays(70, 40, bits, rows, bias=bias), **form)
    found = run_all(feed, 40, bits, **given)
    wanted = quantized_matmul(**feed, width=40, bits=bits, **attributes)
    assert [y.shape for y in found] == [y.shape for y in wanted]
    for have, want in zip(found, wanted, strict=True):
        assert not want.size or relative(have, want) < 1e-5


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
