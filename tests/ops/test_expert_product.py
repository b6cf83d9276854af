"""ExpertMatMul: the reference against a second formulation, every other form against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from native import available_cpu_paths
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from sessions import asleep
from torch import Tensor, nn

from allmem_exporters.model.operators import expert_matmul as torch_expert_matmul
from allmem_exporters.onnx.expert_function import expert_bodies, expert_function
from allmem_exporters.onnx.schema import translation_table
from allmem_ops import DOMAIN, library
from allmem_ops.products import EXPERT_MATMUL
from allmem_ops.reference.experts import expert_matmul
from allmem_ops.reference.product import (
    gated_inputs,
    interleaved,
    interleaved_scales,
    rounded_inputs,
    weights_of,
)

Feed = dict[str, Any]

TOLERANCE = 1e-5
"""Sums of some hundred float32 products, and of integers that are exact."""

KINDS = {
    "x": TensorProto.FLOAT,
    "expert": TensorProto.INT64,
    "matrix": TensorProto.FLOAT,
    "numbers": TensorProto.UINT8,
    "scales": TensorProto.FLOAT16,
    "bias": TensorProto.FLOAT,
}

SHAPES = [(32, 16), (96, 17), (33, 40), (1, 5), (160, 129)]

every_bits = pytest.mark.parametrize("bits", [4, 8, 32])
every_gate = pytest.mark.parametrize("gate", ["none", "silu"])
every_beside = pytest.mark.parametrize("beside", ["one row", "a row a choice"])


@pytest.fixture(params=["avx512vnni", "avx512", "avx2", "generic"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param not in available_cpu_paths():
        pytest.skip(f"this CPU has no {request.param}")
    monkeypatch.setenv("ALLMEM_CPU", request.param)
    return str(request.param)


def arrays(
    inputs: int = 70,
    width: int = 33,
    bits: int = 32,
    *,
    tokens: int = 5,
    choices: int = 2,
    experts: int = 6,
    gate: str = "none",
    beside: str = "one row",
    bias: bool = True,
) -> Feed:
    """What a node is fed; experts are drawn, so that some have several rows and some none."""
    rng = np.random.default_rng([inputs, width, bits, tokens, choices])
    rows = 1 if beside == "one row" else choices
    feed: Feed = {
        "x": rng.standard_normal((tokens, rows, inputs * (1 + (gate == "silu")))),
        "expert": np.argsort(rng.random((tokens, experts)), axis=1)[:, :choices],
    }
    feed["x"] = feed["x"].astype(np.float32)
    if bits == 32:
        feed["matrix"] = rng.standard_normal((experts, width, inputs)).astype(np.float32)
    else:
        blocks = -(-inputs // 32)
        numbers = rng.integers(0, 1 << bits, (experts, width, blocks, 32)).astype(np.uint8)
        scale = rng.uniform(1e-3, 1e-2, (experts, width, blocks))
        least = rng.uniform(-0.1, 0.02, (experts, width, blocks))
        feed["numbers"] = np.stack([interleaved(one, bits) for one in numbers])
        kinds = (scale, least) if bits == 4 else (scale,)
        feed["scales"] = np.stack([interleaved_scales(*one) for one in zip(*kinds, strict=True)])
    if bias:
        feed["bias"] = rng.standard_normal((experts, width)).astype(np.float32)
    return feed


def model_of(feed: Feed, **attributes: Any) -> Any:
    names = [tensor.name if tensor.name in feed else "" for tensor in EXPERT_MATMUL.inputs]
    node = helper.make_node("ExpertMatMul", names, ["y"], domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "experts",
        [helper.make_tensor_value_info(name, KINDS[name], None) for name in feed],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, EXPERT_MATMUL.version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def native(feed: Feed, threads: int = 2, **attributes: Any) -> np.ndarray:
    options = asleep(threads)
    library.register(options)
    model = model_of(feed, **attributes).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, feed)[0]
    return found


def relative(have: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(have - want) / np.linalg.norm(want))


def all_experts(feed: Feed, width: int, bits: int, gate: str) -> np.ndarray:
    """Every row through every expert, and then those that were chosen: a second formulation."""
    x = np.broadcast_to(feed["x"], (*feed["expert"].shape, feed["x"].shape[2]))
    rows = x.reshape(-1, x.shape[2])
    rows = gated_inputs(rows) if gate == "silu" else rows
    if bits == 32:
        matrices = feed["matrix"].astype(np.float64)
    else:
        rows = rounded_inputs(rows)
        pairs = zip(feed["numbers"], feed["scales"], strict=True)
        matrices = np.stack([weights_of(*pair, width, bits) for pair in pairs])
    every = np.einsum("ri,ewi->rew", rows.astype(np.float64), matrices)
    every = every + feed["bias"] if "bias" in feed else every
    chosen = np.eye(len(matrices))[feed["expert"].reshape(-1)]
    return np.einsum("rew,re->rw", every, chosen).reshape(*feed["expert"].shape, width)


@every_bits
@every_gate
@every_beside
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
def test_reference_agrees_with_all_experts_of_which_the_chosen_are_taken(
    bits: int, gate: str, beside: str, bias: bool
) -> None:
    feed = arrays(bits=bits, gate=gate, beside=beside, bias=bias)
    found = expert_matmul(**feed, width=33, bits=bits, input_gate=gate)
    assert relative(found, all_experts(feed, 33, bits, gate)) < 1e-12


@every_bits
@every_gate
@every_beside
@pytest.mark.parametrize(("inputs", "width"), SHAPES)
def test_kernel_agrees_with_the_reference(
    kernels: str, inputs: int, width: int, bits: int, gate: str, beside: str
) -> None:
    for tokens, choices in ((1, 1), (1, 4), (3, 2), (40, 2)):
        sizes = {"tokens": tokens, "choices": choices, "bias": tokens != 3}
        feed = arrays(inputs, width, bits, gate=gate, beside=beside, **sizes)
        found = native(feed, width=width, bits=bits, input_gate=gate)
        wanted = expert_matmul(**feed, width=width, bits=bits, input_gate=gate)
        assert found.shape == (tokens, choices, width)
        assert relative(found, wanted) < TOLERANCE


@every_bits
@every_gate
@every_beside
@pytest.mark.parametrize(("inputs", "width"), SHAPES)
def test_function_body_agrees_with_the_reference(
    inputs: int, width: int, bits: int, gate: str, beside: str
) -> None:
    for tokens, choices in ((1, 4), (5, 2)):
        bias = tokens == 1
        feed = arrays(
            inputs, width, bits, gate=gate, beside=beside, tokens=tokens, choices=choices, bias=bias
        )
        attributes = {"width": width, "bits": bits, "input_gate": gate}
        model = model_of(feed, **attributes)
        model.functions.append(expert_function(inputs=inputs, bias=bias, **attributes))
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), asleep(), providers=["CPUExecutionProvider"]
        )
        assert relative(session.run(None, feed)[0], expert_matmul(**feed, **attributes)) < TOLERANCE


@every_gate
@every_beside
@pytest.mark.parametrize("tokens", [0, 1, 7])
def test_pytorch_agrees_with_the_reference(gate: str, beside: str, tokens: int) -> None:
    feed = arrays(gate=gate, beside=beside, tokens=tokens)
    found = torch_expert_matmul(
        *(torch.from_numpy(array) for array in feed.values()), input_gate=gate
    )
    wanted = expert_matmul(**feed, width=33, input_gate=gate)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-4)


class _Experts(nn.Module):
    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.from_numpy(feed["matrix"]))
        self.bias = nn.Parameter(torch.from_numpy(feed["bias"]))

    def forward(self, x: Tensor, expert: Tensor) -> tuple[Tensor, Tensor]:
        return (
            torch_expert_matmul(x, expert, self.matrix, input_gate="silu"),
            torch_expert_matmul(x[..., :70], expert, self.matrix, self.bias),
        )


def test_traced_operator_runs_with_the_library_and_without_it() -> None:
    feed = arrays(gate="silu")
    tokens = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        _Experts(feed).eval(),
        (torch.from_numpy(feed["x"]), torch.from_numpy(feed["expert"])),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: tokens}, {0: tokens}),
        input_names=["x", "expert"],
        custom_translation_table=translation_table(),
    )
    assert program is not None
    for body in expert_bodies(program.model):
        program.model.functions[body.identifier()] = body
    assert len(program.model.functions) == 2
    text = ir.serde.serialize_model(program.model).SerializeToString()
    given = {"x": feed["x"][:3], "expert": feed["expert"][:3]}
    x = given["x"]
    wanted = [
        expert_matmul(x, given["expert"], feed["matrix"], width=33, input_gate="silu"),
        expert_matmul(x[..., :70], given["expert"], feed["matrix"], bias=feed["bias"], width=33),
    ]
    for ours in (True, False):
        options = asleep()
        if ours:
            library.register(options)
        session = onnxruntime.InferenceSession(text, options, providers=["CPUExecutionProvider"])
        for found, want in zip(session.run(None, given), wanted, strict=True):
            assert relative(found, want) < TOLERANCE


@every_bits
def test_matrices_that_nobody_chose_have_no_effect_and_may_be_anything(bits: int) -> None:
    feed = arrays(bits=bits, experts=9, tokens=3)
    found = native(feed, width=33, bits=bits)
    idle = np.setdiff1d(np.arange(9), feed["expert"])
    assert idle.size
    feed["matrix" if bits == 32 else "scales"][idle] = np.nan
    np.testing.assert_array_equal(native(feed, width=33, bits=bits), found)
    assert np.isfinite(found).all()


@every_bits
def test_rows_do_not_depend_on_each_other_nor_on_the_threads(bits: int) -> None:
    feed = arrays(bits=bits, tokens=40, gate="silu")
    whole = native(feed, threads=1, width=33, bits=bits, input_gate="silu")
    found = native(feed, threads=2, width=33, bits=bits, input_gate="silu")
    np.testing.assert_array_equal(found, whole)
    alone = {**feed, "x": feed["x"][7:8], "expert": feed["expert"][7:8]}
    np.testing.assert_array_equal(native(alone, width=33, bits=bits, input_gate="silu"), whole[7:8])


@every_bits
@pytest.mark.parametrize(("tokens", "choices"), [(0, 2), (3, 0)])
def test_nothing_chosen_gives_nothing(bits: int, tokens: int, choices: int) -> None:
    feed = arrays(bits=bits, tokens=tokens, choices=choices)
    assert native(feed, width=33, bits=bits).shape == (tokens, choices, 33)


def test_nan_stays_in_its_row(kernels: str) -> None:
    for bits in (4, 8, 32):
        feed = arrays(bits=bits, tokens=6)
        feed["x"][2, 0, 5] = np.nan
        found = native(feed, width=33, bits=bits)
        assert np.isnan(found[2]).all()
        assert np.isfinite(np.delete(found, 2, axis=0)).all()


BAD: list[tuple[int, dict[str, Any], list[str]]] = [
    (32, {"expert": lambda a: a * 0 + 6}, ["expert holds 6", "6 experts"]),
    (32, {"expert": lambda a: a * 0 - 1}, ["expert holds -1"]),
    (32, {"expert": lambda a: a[:4]}, ["expert", "[4, 2]", "[5, ?]"]),
    (32, {"x": lambda a: a[0]}, ["x", "[1, 70]", "[tokens, 1 or choices"]),
    (32, {"x": lambda a: np.repeat(a, 3, 1)}, ["[5, 3, 70]", "one for each of its choices"]),
    (32, {"x": lambda a: a[:, :, :69]}, ["matrix", "[6, 33, 70]"]),
    (32, {"matrix": lambda a: a[:, :32]}, ["matrix", "[6, 32, 70]"]),
    (32, {"matrix": lambda a: a[0]}, ["matrix", "[33, 70]"]),
    (32, {"bias": lambda a: a[:5]}, ["bias", "[5, 33]", "[6, 33]"]),
    (4, {"numbers": lambda a: a[:, :2]}, ["numbers", "[6, 2, 3, 256]"]),
    (8, {"scales": lambda a: a[:5]}, ["scales", "[5, 3, 3, 1, 16]"]),
]


@pytest.mark.parametrize(("bits", "changes", "said"), BAD)
def test_inputs_that_do_not_fit_are_refused_by_name(
    bits: int, changes: dict[str, Any], said: list[str]
) -> None:
    feed = arrays(bits=bits)
    for name, change in changes.items():
        feed[name] = np.ascontiguousarray(change(feed[name]))
    with pytest.raises(InvalidArgument) as refusal:
        native(feed, width=33, bits=bits)
    assert all(text in str(refusal.value) for text in ["ExpertMatMul", *said]), refusal.value


@pytest.mark.parametrize(
    ("held", "bits", "said"),
    [
        (4, 5, "attribute bits is 5; it must be 4, 8 or 32"),
        (4, 32, "bits is 32, and the input matrix is missing"),
        (32, 8, "bits is 8, and the input matrix is there"),
    ],
)
def test_matrices_and_bits_go_together(held: int, bits: int, said: str) -> None:
    feed = arrays(bits=held)
    with pytest.raises(Exception, match=said):
        native(feed, width=33, bits=bits)
    with pytest.raises(ValueError, match="^ExpertMatMul: bits is"):
        expert_matmul(**feed, width=33, bits=bits)


def test_reference_refuses_rows_that_do_not_fit_the_choices() -> None:
    feed = arrays()
    with pytest.raises(ValueError, match="one for each of its choices"):
        expert_matmul(**{**feed, "x": np.repeat(feed["x"], 3, 1)}, width=33)
