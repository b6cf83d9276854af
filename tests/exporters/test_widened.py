"""Matrices that the check widens with ONNX Runtime: those that are stored, in memory once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from allmem_exporters.onnx import widened
from allmem_exporters.onnx.function_body import OPSET
from allmem_exporters.onnx.graph_runner import open_session
from allmem_exporters.quantization.formats import stored_format, widen_inputs
from allmem_exporters.quantization.stored_format import StoredMatrix
from allmem_ops.products import QUANTIZED_MATMUL
from allmem_ops.schema import DOMAIN


def product_of(stored: StoredMatrix) -> onnx.ModelProto:
    """One product, as an export has it."""
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in stored.tensors.items()]
    node = helper.make_node(
        QUANTIZED_MATMUL.name,
        ["x", *stored.tensors],
        ["y", ""],
        domain=DOMAIN,
        width=stored.rows,
        bits=stored.format.bits,
    )
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, stored.columns])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, stored.rows])
    return helper.make_model(
        helper.make_graph([node], "product", [x], [y], tensors),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        ir_version=10,
    )


@pytest.mark.parametrize("in_pieces", [True, False])
@pytest.mark.parametrize("weights", ["int4", "int8"])
@pytest.mark.parametrize(("rows", "columns"), [(80, 64), (77, 40)])
def test_product_of_a_widened_matrix_is_that_of_the_stored_one(
    rows: int, columns: int, weights: str, in_pieces: bool, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(widened, "_BYTES_AT_ONCE", 2 * 16 * 4 * 64)  # two tiles of five
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(rows, columns, generator=generator)
    stored = stored_format(weights).quantize(matrix, "matrix")
    model = product_of(stored)
    matrices = widen_inputs(model, tmp_path, in_pieces=in_pieces)
    (found,) = matrices.values()
    exact = stored.dequantize().numpy()
    np.testing.assert_array_equal(found[:columns], exact.T)
    x = torch.randn(3, columns, generator=generator).numpy()
    (y,) = open_session(tmp_path, model, native=False).run(None, {"x": x, **matrices})
    np.testing.assert_allclose(y, x @ exact.T, rtol=1e-5, atol=1e-5)


PEAK = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
import numpy as np
from test_widened import product_of
from allmem_exporters.quantization.formats import stored_format, widen_inputs
from allmem_exporters.quantization.stored_format import StoredMatrix
from allmem_exporters.onnx.graph_runner import open_session

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) << 10

def product(rows, columns):
    stored_as = stored_format("int4")
    shapes = stored_as.layout(np.empty((rows, columns), np.float32))
    tensors = {{name: np.ones(*one) for name, one in shapes.items()}}
    model = product_of(StoredMatrix("matrix", stored_as, rows, columns, tensors))
    matrices = widen_inputs(model, Path("."), in_pieces=True)
    open_session(Path("."), model, native=False).run(
        None, {{"x": np.ones((1, columns), np.float32), **matrices}}
    )

product(64, 64)
before = peak()
product(4096, 4096)
print((peak() - before) / (4 * 4096 * 4096))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_widening_takes_little_more_memory_than_the_widened_matrix() -> None:
    code = PEAK.format(here=str(Path(__file__).parent))
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(told.stdout) < 2.5, "the steps of the body would leave fourteen"
