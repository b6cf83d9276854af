"""The operator table: consistent in itself, with the references and with the document."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from allmem_ops import cpp_header, kernel_fields, products, schema
from allmem_ops.contract import Attribute, Flag, Operator, Tensor
from allmem_ops.reference import sliding_window_attention, ttt_memory
from allmem_ops.reference.experts import expert_matmul
from allmem_ops.reference.product import quantized_matmul
from allmem_ops.schema import (
    DOMAIN,
    KNOWN,
    OPERATORS,
    QUANTIZED_ATTENTION,
    SINK_LOGITS,
    WHOLE_ATTENTION,
)

REFERENCES = {
    "SlidingWindowAttention": sliding_window_attention,
    "TTTMemory": ttt_memory,
    "QuantisedMatMul": quantized_matmul,
    "ExpertMatMul": expert_matmul,
}
DOCUMENT = Path(__file__).parents[2] / "docs" / "operators.md"

WHOLE = {**KNOWN, WHOLE_ATTENTION.name: WHOLE_ATTENTION}
"""Each operator with all inputs and outputs that it can have."""

STATEFUL = {name: operator for name, operator in WHOLE.items() if operator.state}

every_operator = pytest.mark.parametrize("operator", WHOLE.values(), ids=WHOLE.keys())
every_operator_with_state = pytest.mark.parametrize(
    "operator", STATEFUL.values(), ids=STATEFUL.keys()
)


def example(attribute: Attribute) -> object:
    """A value that the table allows."""
    if attribute.default is not None:
        return attribute.default
    return {"int": 4, "float": 0.5, "string": "".join(attribute.choices[:1])}[attribute.kind]


def required(operator: Operator) -> dict[str, object]:
    return {a.name: example(a) for a in operator.attributes if a.default is None}


def bad_values(attribute: Attribute) -> list[object]:
    """Values of a wrong type, past each bound, or no number at all."""
    if attribute.kind == "string":
        return ["nonsense", "", attribute.choices[0].upper(), 1, None]
    values: list[object] = ["1", True, float("nan"), float("inf"), float("-inf"), [1]]
    if attribute.kind == "int":
        values.append(1.0)
    if attribute.minimum is not None:
        values.append(attribute.minimum - 1 if attribute.kind == "float" else -(10**6))
        values += [int(attribute.minimum) - 1] if attribute.kind == "int" else []
    if attribute.maximum is not None:
        values.append(attribute.maximum * 2 if attribute.kind == "float" else 10**6)
        values += [int(attribute.maximum) + 1] if attribute.kind == "int" else []
    return values


BAD = [
    pytest.param(operator, attribute, value, id=f"{operator.name}-{attribute.name}-{value!r}")
    for operator in KNOWN.values()
    for attribute in operator.attributes
    for value in bad_values(attribute)
]


@pytest.mark.parametrize(("operator", "attribute", "value"), BAD)
def test_bad_attribute_is_refused_by_operator_name_and_value(operator, attribute, value):
    with pytest.raises(ValueError, match=f"^{operator.name}: ") as caught:
        operator.attribute_values({**required(operator), attribute.name: value})
    assert attribute.name in str(caught.value)
    if value is not None:
        assert repr(value).strip("'") in str(caught.value)


@pytest.mark.parametrize(
    ("operator", "attribute", "value"),
    [
        pytest.param(operator, attribute, value, id=f"{operator.name}-{attribute.name}-{value}")
        for operator in KNOWN.values()
        for attribute in operator.attributes
        for value in (*attribute.choices, attribute.minimum, attribute.maximum, attribute.default)
        if value is not None
    ],
)
def test_choices_bounds_and_defaults_are_allowed(operator, attribute, value):
    if attribute.kind == "int":
        value = int(value)
    given = {**required(operator), attribute.name: value}
    assert operator.attribute_values(given)[attribute.name] == value


@every_operator
def test_missing_attribute_without_default_is_named(operator):
    for name in required(operator):
        given = {k: v for k, v in required(operator).items() if k != name}
        with pytest.raises(ValueError, match=f"^{operator.name}: attribute '{name}' is required"):
            operator.attribute_values(given)


@every_operator
def test_unknown_attribute_is_named(operator):
    with pytest.raises(ValueError, match=f"^{operator.name}: unknown attribute 'windw'"):
        operator.attribute_values({**required(operator), "windw": 4})


@every_operator
def test_defaults_are_filled_in_for_every_attribute(operator):
    values = operator.attribute_values(required(operator))
    assert list(values) == [a.name for a in operator.attributes]
    assert values == {a.name: example(a) for a in operator.attributes}


@every_operator_with_state
def test_every_state_input_has_an_output_of_equal_shape_and_type_in_the_same_order(operator):
    present = [t for t in operator.outputs if t.name.startswith("present_")]
    assert operator.state
    assert operator.outputs == (operator.outputs[0], *present)
    for past, new in zip(operator.state, present, strict=True):
        assert new.name == past.name.replace("past_", "present_")
        assert (new.shape, new.element) == (past.shape, past.element)


@every_operator_with_state
def test_state_inputs_come_last_but_for_sink_logits_and_no_name_occurs_twice(operator):
    inputs = tuple(tensor for tensor in operator.inputs if tensor is not SINK_LOGITS)
    assert inputs[-len(operator.state) :] == operator.state
    assert operator.inputs[: len(inputs)] == inputs
    names = [t.name for t in (*operator.inputs, *operator.outputs)]
    names += [a.name for a in operator.attributes]
    assert len(set(names)) == len(names)


def test_scales_follow_what_attention_has_without_them():
    plain = OPERATORS[QUANTIZED_ATTENTION.name]
    assert QUANTIZED_ATTENTION.inputs[:-1] == plain.inputs
    assert QUANTIZED_ATTENTION.outputs[:-1] == plain.outputs
    assert QUANTIZED_ATTENTION.attributes == plain.attributes


@every_operator
def test_every_size_in_a_shape_is_explained(operator):
    explained = set(re.findall(r"\w+", f"{schema.__doc__} {products.__doc__}"))
    for tensor in (*operator.inputs, *operator.outputs):
        for size in tensor.shape:
            assert set(re.findall(r"[a-z_]+", str(size))) <= explained, (tensor.name, size)


@every_operator
def test_reference_takes_the_inputs_and_attributes_of_the_table(operator):
    parameters = inspect.signature(REFERENCES[operator.name]).parameters.values()
    inputs = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    defaults = {
        p.name: None if p.default is p.empty else p.default
        for p in parameters
        if p.kind is p.KEYWORD_ONLY
    }
    assert inputs == [t.name for t in operator.inputs]
    assert defaults == {a.name: a.default for a in operator.attributes}


def section(operator: Operator) -> str:
    """The part of the document between the operator's heading and the next of its level."""
    text = DOCUMENT.read_text(encoding="utf-8")
    match = re.search(rf"^## {operator.name}\b.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert match, f"{DOCUMENT.name} has no section on {operator.name}"
    return match.group()


def tensor_row(tensor: Tensor) -> str:
    """How a row of the document's tables of inputs and outputs begins."""
    shape = ", ".join(str(size) for size in tensor.shape)
    return f"| `{tensor.name}` | `[{shape}]` | {tensor.element} | "


def attribute_row(attribute: Attribute) -> str:
    """How a row of the document's table of attributes begins."""
    default = "required" if attribute.default is None else f"`{attribute.default}`"
    if attribute.choices:
        allowed = ", ".join(f"`{choice}`" for choice in attribute.choices)
    elif attribute.maximum is not None:
        allowed = f"`{attribute.minimum:g}` to `{attribute.maximum:g}`"
    else:
        allowed = f"at least `{attribute.minimum:g}`"
    return f"| `{attribute.name}` | {attribute.kind} | {default} | {allowed} | "


@every_operator
def test_document_lists_exactly_the_inputs_outputs_and_attributes_of_the_table(operator):
    rows = [line for line in section(operator).splitlines() if line.startswith("| `")]
    expected = [tensor_row(t) for t in (*operator.inputs, *operator.outputs)]
    expected += [attribute_row(a) for a in operator.attributes]
    for beginning in expected:
        assert any(row.startswith(beginning) for row in rows), f"no row begins {beginning}"
    assert len(rows) == len(expected), "a row of the document is not in the table"


def test_document_names_domain_and_versions():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert f"`{DOMAIN}`" in text
    for operator in KNOWN.values():
        assert f"## {operator.name}, version {operator.version}\n" in text


def test_cpp_header_is_the_one_that_the_table_gives():
    assert cpp_header.HEADER.read_text(encoding="utf-8") == cpp_header.header(), (
        "run python -m allmem_ops.cpp_header"
    )


@every_operator
def test_kernel_fields_are_numbers_named_once_and_every_attribute_reaches_one(operator):
    values = kernel_fields(operator, required(operator))
    assert list(values) == [field.name for field in operator.kernel_fields]
    assert len(values) == len(operator.kernel_fields)
    assert all(isinstance(value, (int, float, tuple)) for value in values.values())
    sources = [field.source for field in operator.kernel_fields]
    reached = {s.name for s in sources if isinstance(s, Attribute)}
    reached |= {name for s in sources if isinstance(s, Flag) for name, _ in s.when}
    assert reached == {a.name for a in operator.attributes}


@every_operator
def test_flags_look_at_choices_that_exist_and_every_choice_makes_a_difference(operator):
    choices = {a.name: a.choices for a in operator.attributes}
    for flag in operator.flags:
        for name, allowed in flag.when:
            assert set(allowed) < set(choices[name]), (flag.name, name)
    for name in {name for flag in operator.flags for name, _ in flag.when}:
        told_apart = {
            tuple(kernel_fields(operator, {**required(operator), name: choice}).values())
            for choice in choices[name]
        }
        assert len(told_apart) == len(choices[name]), name


@pytest.mark.parametrize(
    ("schedule", "grad_at", "read", "gradient", "commit"),
    [
        ("read_norm_write", "normalized", 0, 1, 1),
        ("read_norm_write", "raw", 0, 0, 1),
        ("post", "normalized", 1, 1, 1),
        ("post", "raw", 1, 0, 1),
        ("pre", "normalized", 1, 1, 0),
        ("pre", "raw", 1, 0, 0),
        ("none", "normalized", 0, 0, 0),
        ("none", "raw", 0, 0, 0),
    ],
)
def test_schedule_says_where_normalized_weights_are_used(schedule, grad_at, read, gradient, commit):
    fields = kernel_fields(
        OPERATORS["TTTMemory"], {"chunk": 8, "norm_schedule": schedule, "grad_at": grad_at}
    )
    used = (fields["read_normal"], fields["gradient_normal"], fields["commit_normal"])
    assert used == (read, gradient, commit)
    flags = OPERATORS["TTTMemory"].decided(norm_schedule=schedule, grad_at=grad_at)
    assert flags == {
        "read_normal": bool(read),
        "gradient_normal": bool(gradient),
        "commit_normal": bool(commit),
    }


def test_choices_are_indices_and_numbers_keep_their_kind():
    memory = kernel_fields(OPERATORS["TTTMemory"], {"chunk": 8, "out_gate": "silu", "clip": 1})
    assert (memory["chunk"], memory["out_gate"], memory["residual"]) == (8, 1, 1)
    assert isinstance(memory["clip"], float)
    attention = {"window": 4, "sinks": 1, "scale": 0.5, "sink_rope": "true"}
    assert kernel_fields(OPERATORS["SlidingWindowAttention"], attention)["clamp_sinks"] == 0
