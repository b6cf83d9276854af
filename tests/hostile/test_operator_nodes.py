"""Nodes of ours as no exporter writes them: refused by name or run, never a memory fault."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sanitized_build import SANITIZED, build

from allmem_ops import library
from allmem_ops.schema import KNOWN, VERSIONS
from tests.hostile import watched
from tests.hostile.node_case import Given, NodeCase
from tests.hostile.operator_nodes import mutate, run

LATEST = max(max(versions) for versions in VERSIONS.values())
NODES = 500
"""Enough for each change to each operator; `python -m tests.hostile.operator_nodes` runs more."""


@pytest.fixture(scope="module", autouse=True)
def needs_the_library() -> None:
    try:
        library.check_library()
    except library.LibraryNotFound as error:
        pytest.skip(str(error))


@functools.cache
def good(operator: str, **wanted: str) -> NodeCase:
    """The first good node of an operator, with an input of the type that is asked for."""
    for seed in range(2000):
        case = mutate(seed)
        given = case.inputs
        if case.operator == operator and not case.changes and _is_plain(case):
            types = {name: value.element for name, value in given.items() if value is not None}
            if all(types.get(name) == element for name, element in wanted.items()):
                return case
    raise AssertionError(f"no {operator} among the seeds")


def _is_plain(case: NodeCase) -> bool:
    return all(value is None or value.data for value in case.inputs.values())


def changed(case: NodeCase, **inputs: Given | None) -> NodeCase:
    return replace(case, changes=("changed",), inputs={**case.inputs, **inputs})


def test_generated_nodes_run_clean_under_the_sanitizers() -> None:
    built = build("sanitized", "allmem_ops", *SANITIZED) / "liballmem_ops.so"
    variables = watched.environment(built, sanitized=True)
    found = watched.watch("tests.hostile.operator_nodes", 0, NODES, variables, patience=120)
    assert not found.failures, "\n".join(
        f"{mutate(failure.seed).label}\n{failure.report}" for failure in found.failures[:3]
    )
    assert found.done == NODES and NODES / 8 < found.ran < NODES


def test_a_child_that_crashes_or_hangs_is_found_by_its_seed(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(
        "import os, sys, time\n"
        "first, count = int(sys.argv[3]), int(sys.argv[5])\n"
        "for seed in range(first, first + count):\n"
        "    print('begin', seed, flush=True)\n"
        "    if seed == 3: os.abort()\n"
        "    if seed == 5: time.sleep(60)\n"
        "    print('end', seed, 'ran', flush=True)\n"
    )
    variables = {**os.environ, "PYTHONPATH": str(tmp_path)}
    found = watched.watch("crashing", 0, 8, variables, patience=1.0)
    assert [failure.seed for failure in found.failures] == [3, 5]
    assert found.done == found.ran == 6


@pytest.mark.parametrize("name", ["past_scale", "present_scale"])
def test_int8_without_a_scale_is_refused_by_name(name: str) -> None:
    case = good("SlidingWindowAttention", past_key="int8")
    if name == "past_scale":
        lacking = changed(case, past_scale=None)
    else:
        outputs = {**case.outputs, name: None}
        lacking = replace(changed(case), outputs=outputs, in_place={})
    kind = "input" if name.startswith("past") else "output"
    said = run(lacking)
    assert f"SlidingWindowAttention: past_key is int8, and the {kind} {name} is missing" in said


def test_scales_beside_another_cache_are_refused_by_name() -> None:
    case = good("SlidingWindowAttention", past_key="float16")
    surplus = replace(changed(case), outputs={**case.outputs, "present_scale": "float32"})
    said = run(surplus)
    assert "past_key is float16 and there is an output present_scale; only int8 has scales" in said


@pytest.mark.parametrize(
    ("operator", "name", "dims"),
    [
        ("SlidingWindowAttention", "past_key", (1 << 30, 1 << 30, 0, 8)),
        ("SlidingWindowAttention", "qkv", (0, 1 << 31, 1 << 31)),
        ("TTTMemory", "initial_weights", (1 << 50, 3, 0, 8)),
        ("QuantisedMatMul", "x", (1 << 31, 0, 1 << 31)),
    ],
)
def test_axes_that_no_memory_holds_are_refused_by_name(
    operator: str, name: str, dims: tuple[int, ...]
) -> None:
    case = good(operator)
    given = case.inputs[name]
    assert given is not None
    said = run(changed(case, **{name: replace(given, dims=dims, data=b"", source="made")}))
    assert f"{operator}: input {name} has shape [{dims[0]}, " in said
    assert "no memory holds axes of this length" in said


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        ("SlidingWindowAttention", "position"),
        ("SlidingWindowAttention", "qkv"),
        ("TTTMemory", "past_weights"),
        ("QuantisedMatMul", "x"),
        ("ExpertMatMul", "expert"),
    ],
)
def test_misaligned_input_is_refused_by_name(operator: str, name: str) -> None:
    case = good(operator)
    given = case.inputs[name]
    assert given is not None
    said = run(changed(case, **{name: replace(given, source="feed", shift=1)}))
    assert f"{operator}: input {name} lies at an address" in said


def test_text_of_a_wrong_attribute_stays_one_short_line() -> None:
    case = good("QuantisedMatMul")
    wrong = replace(changed(case), attributes={**case.attributes, "input_gate": "a\n" * 5000})
    said = run(wrong)
    assert "attribute 'input_gate' is 'a?a?" in said
    assert "\n" not in said and len(said) < 400


def test_piece_without_tokens_may_have_any_width_and_keeps_the_cache() -> None:
    case = good("SlidingWindowAttention", past_key="float32")
    key = case.inputs["past_key"]
    assert key is not None
    heads = key.dims[1] if len(key.dims) == 4 else len(case.attributes["window"])
    width = key.dims[-1] * heads * ((1 << 30) + 2)
    empty = Given((key.dims[0], 0, width), "float32", b"", source="made")
    given = changed(case, qkv=empty, sink_logits=None)
    wide = replace(given, outputs={**case.outputs, "output": "float32"})
    assert run(wide) == "ran"


def test_good_nodes_take_every_attribute_version_and_optional_tensor() -> None:
    """What the contract gets later must come into the generated nodes, too."""
    good = [case for case in map(mutate, range(3000)) if not case.changes]
    for name, operator in KNOWN.items():
        cases = [case for case in good if case.operator == name]
        for attribute in operator.attributes:
            given = {str(c.attributes.get(attribute.name, attribute.default)) for c in cases}
            assert len(given - {str(attribute.default)}) > (attribute.default is None), attribute
        assert {c.version for c in cases} == set(range(1, LATEST + 1))
    attention = [case for case in good if case.operator == "SlidingWindowAttention"]
    kinds = {
        (
            case.inputs["past_key"].element,
            isinstance(case.attributes["window"], tuple),
            "softcap" in case.attributes,
            case.inputs.get("sink_logits") is not None,
        )
        for case in attention
        if case.inputs["past_key"] is not None
    }
    assert len(kinds) == 3 * 2 * 2 * 2
    for name in ("bias", "x_more"):
        there = {case.inputs.get(name) is not None for case in good if "numbers" in case.inputs}
        assert there == {True, False}


def test_good_nodes_are_as_many_as_they_should_be() -> None:
    unchanged = sum(not mutate(seed).changes for seed in range(160))
    assert 8 < unchanged < 60
    assert np.unique([mutate(seed).operator for seed in range(50)]).size == 4
