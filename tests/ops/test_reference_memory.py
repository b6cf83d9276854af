"""The memory's reference against finite differences and against a second formulation."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pytest
from memory_documents import (
    CHUNK,
    DIM,
    HEADS,
    HIDDEN,
    document,
    norms_of,
    options,
    read,
    relative_rms,
)
from naive_memory import document_memory, unpack

from allmem_ops.reference import FastWeights
from allmem_ops.reference.memory import gradients, normalized
from allmem_ops.schema import TTT_MEMORY

# Two float64 evaluations of sums of some thousand terms: 1e-16 each, grown by four commits.
SAME = 1e-12


def loss(packed, key, value, inner_loss, residual):
    """Inner loss of each token, written so that complex weights pass through it."""
    gate_in, up_in = key @ packed[0].T, key @ packed[1].T
    out = (gate_in / (1.0 + np.exp(-gate_in)) * up_in) @ packed[2] + (key if residual else 0.0)
    if inner_loss == "l2":
        return 0.5 * ((out - value) ** 2).sum(axis=1)
    return -(out * value).sum(axis=1)


def central_difference(function, step=1e-5):
    return (function(step) - function(-step)) / (2 * step)


def complex_step(function, step=1e-30):
    return function(1j * step).imag / step


@pytest.mark.parametrize(
    ("difference", "tolerance"),
    [
        # Rounding of the loss over the step, 1e-16 / 1e-5, is what a real difference can resolve.
        pytest.param(central_difference, 1e-9, id="central-difference"),
        # A complex step subtracts nothing, so only rounding is left.
        pytest.param(complex_step, 1e-14, id="complex-step"),
    ],
)
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("inner_loss", ["neg_dot", "l2"])
@pytest.mark.parametrize("matrix", [0, 1, 2], ids=["gate", "up", "down"])
def test_closed_form_gradient_is_the_derivative_of_the_inner_loss(
    matrix, inner_loss, residual, difference, tolerance
):
    random = np.random.default_rng(1)
    packed = random.normal(size=(3, HIDDEN, DIM))
    key, value = random.normal(size=(2, 7, DIM))
    rate = random.uniform(0.1, 2.0, size=(7, 3))
    closed = gradients(FastWeights(*packed), key, value, rate, inner_loss, residual)[matrix]
    expected = np.empty((HIDDEN, DIM))
    for index in np.ndindex(HIDDEN, DIM):

        def moved(by, index=index):
            weights = packed.astype(complex if isinstance(by, complex) else float)
            weights[(matrix, *index)] += by
            return (rate[:, matrix] * loss(weights, key, value, inner_loss, residual)).sum()

        expected[index] = difference(moved)
    assert relative_rms(closed, expected) < tolerance


def test_residual_changes_no_gradient_of_the_dot_product_loss():
    random = np.random.default_rng(2)
    weights = FastWeights(*random.normal(size=(3, HIDDEN, DIM)))
    key, value, rate = random.normal(size=(7, DIM)), random.normal(size=(7, DIM)), np.ones((7, 3))
    with_it = gradients(weights, key, value, rate, "neg_dot", True)
    assert np.array_equal(with_it, gradients(weights, key, value, rate, "neg_dot", False))


def test_residual_makes_the_squared_loss_learn_value_minus_key():
    random = np.random.default_rng(3)
    weights = FastWeights(*random.normal(size=(3, HIDDEN, DIM)))
    key, value, rate = random.normal(size=(7, DIM)), random.normal(size=(7, DIM)), np.ones((7, 3))
    with_it = gradients(weights, key, value, rate, "l2", True)
    assert relative_rms(with_it, gradients(weights, key, value - key, rate, "l2", False)) < SAME


class Case(NamedTuple):
    norm_schedule: str
    grad_at: str
    inner_loss: str
    residual: int
    clip: float
    lr_reduce: str
    kernel: int
    conv_activation: str
    value_norm: str
    out_norm: int
    out_gate: str

    @property
    def id(self) -> str:
        return "-".join(
            [
                self.norm_schedule,
                self.grad_at,
                self.inner_loss,
                ("plain", "residual")[self.residual],
                f"clip{self.clip:g}",
                self.lr_reduce,
                f"kernel{self.kernel}",
                self.conv_activation,
                f"value_{self.value_norm}",
                ("raw_out", "normed_out")[self.out_norm],
                f"gate_{self.out_gate}",
            ]
        )

    @property
    def attributes(self):
        fields = self._asdict()
        del fields["kernel"]
        return options(**fields)


SIGMOID = "sigmoid"
# The defaults, then a covering set: any two values of any two attributes meet in some case.
CASES = [
    Case("read_norm_write", "normalized", "neg_dot", 1, 0.1, "sum", 3, "silu", "none", 1, SIGMOID),
    Case("post", "raw", "l2", 0, 0.0, "mean", 1, "silu_qk", "rms", 1, "silu"),
    Case("pre", "normalized", "neg_dot", 0, 0.0, "mean", 3, "silu", "l2", 0, "none"),
    Case("none", "raw", "neg_dot", 1, 0.1, "sum", 1, "none", "none", 0, "none"),
    Case("pre", "normalized", "l2", 1, 0.1, "sum", 3, "silu_qk", "rms", 0, "sigmoid"),
    Case("read_norm_write", "normalized", "l2", 0, 0.0, "mean", 1, "none", "l2", 1, "sigmoid"),
    Case("post", "normalized", "neg_dot", 0, 0.1, "sum", 3, "silu", "l2", 0, "silu"),
    Case("none", "normalized", "l2", 1, 0.0, "mean", 3, "silu", "rms", 1, "none"),
    Case("pre", "raw", "neg_dot", 1, 0.0, "mean", 1, "none", "none", 1, "silu"),
    Case("read_norm_write", "raw", "l2", 0, 0.1, "mean", 3, "silu_qk", "none", 0, "none"),
    Case("none", "raw", "neg_dot", 1, 0.0, "sum", 1, "silu_qk", "l2", 0, "sigmoid"),
    Case("post", "normalized", "neg_dot", 1, 0.0, "mean", 3, "none", "none", 0, "none"),
    Case("read_norm_write", "raw", "neg_dot", 1, 0.1, "mean", 1, "silu", "rms", 0, "silu"),
    Case("none", "normalized", "neg_dot", 0, 0.0, "sum", 3, "none", "rms", 1, "silu"),
    Case("post", "normalized", "neg_dot", 1, 0.1, "sum", 1, "silu", "l2", 1, "sigmoid"),
]


def test_any_two_attribute_values_meet_in_some_case():
    values: dict[str, tuple] = {
        a.name: a.choices or (0, 1)
        for a in TTT_MEMORY.attributes
        if a.choices or (a.kind == "int" and a.maximum == 1)
    }
    values |= {"clip": (0.0, 0.1), "kernel": (1, 3)}
    assert set(values) == set(Case._fields)
    for first, second in combinations(values, 2):
        met = {(getattr(case, first), getattr(case, second)) for case in CASES}
        missing = {(a, b) for a in values[first] for b in values[second]} - met
        assert not missing, f"{first} x {second}: {missing} in no case"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_reference_agrees_with_a_second_formulation(case):
    time = 3 * CHUNK + 4
    inputs = document(time, kernel=case.kernel, seed=4)
    one_row = {**inputs, "qkv": inputs["qkv"][0], "control": inputs["control"][0]}
    expected, heads = document_memory(one_row, case.attributes)
    output, state = read(inputs, case.attributes, cuts=(1, 8, 11, 20))
    assert relative_rms(output[0], expected) < SAME
    for n, head in enumerate(heads):
        for name in ("gate", "up", "down"):
            for kind, arrays in (
                ("weights", head.held),
                ("momentum", head.moved),
                ("gradient", head.pending),
            ):
                actual = unpack(state[kind][0, n])[name]
                assert relative_rms(actual, arrays[name]) < SAME, (kind, name)
        assert state["momentum_sum"][0, n] == pytest.approx(head.pending_momentum, rel=SAME)


@pytest.mark.parametrize("case", CASES[:8], ids=lambda case: case.id)
def test_every_commit_agrees_with_the_second_formulation(case):
    inputs = document(3 * CHUNK, kernel=case.kernel, seed=5)
    one_row = {**inputs, "qkv": inputs["qkv"][0], "control": inputs["control"][0]}
    _, heads = document_memory(one_row, case.attributes)
    for chunk in range(3):
        part = {**inputs, "qkv": inputs["qkv"][:, : CHUNK * (chunk + 1)]}
        _, state = read(part, case.attributes)
        for n, head in enumerate(heads):
            held, moved = head.chunks[chunk]
            for name in held:
                assert relative_rms(unpack(state["weights"][0, n])[name], held[name]) < SAME
                assert relative_rms(unpack(state["momentum"][0, n])[name], moved[name]) < SAME
        assert not state["gradient"].any()
        assert not state["momentum_sum"].any()


def test_normalization_restores_the_norms_of_the_initial_weights():
    random = np.random.default_rng(6)
    initial = random.normal(size=(HEADS, 3, HIDDEN, DIM))
    wanted = norms_of(initial)
    grown = initial * 30.0 + random.normal(size=initial.shape)
    rescaled = np.stack([normalized(grown[n], wanted[n], 1e-6) for n in range(HEADS)])
    assert relative_rms(norms_of(rescaled), wanted) < SAME
    again = np.stack([normalized(rescaled[n], wanted[n], 1e-6) for n in range(HEADS)])
    assert relative_rms(again, rescaled) < SAME


def test_normalization_leaves_the_initial_weights_and_zero_rows_alone():
    initial = np.random.default_rng(7).normal(size=(1, 3, HIDDEN, DIM))
    initial[0, 0, 2] = 0.0
    rescaled = normalized(initial[0], norms_of(initial)[0], 1e-6)
    assert relative_rms(rescaled, initial[0]) < SAME
    assert not rescaled[0, 2].any()
