"""Writes the operator table as the C++ header that all kernels include.

python -m allmem_ops.cpp_header      writes custom_ops/src/common/operator_fields.h of a checkout
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from allmem_ops.contract import ELEMENTS, Attribute, Flag, KernelField, Operator, Tensor, Value
from allmem_ops.products import EXPERT_MATMUL, QUANTIZED_MATMUL
from allmem_ops.schema import QUANTIZED_ATTENTION_BY_HEAD, TTT_MEMORY, with_sink_logits

HEADER = Path(__file__).resolve().parents[1] / "src" / "common" / "operator_fields.h"

PREFIXES = {
    "Attention": with_sink_logits(QUANTIZED_ATTENTION_BY_HEAD),
    "Memory": TTT_MEMORY,
    "Product": QUANTIZED_MATMUL,
    "Expert": EXPERT_MATMUL,
}
"""What the operators are called in C++."""

_TYPES = {"int64": "int64_t", "per_head": "PerHead", "float32": "float", "bool": "bool"}
_POINTERS = {"activation": "Activation", "cache": "void", "float32": "float"}

_HEAD = """\
// The operator table (allmem_ops/schema.py) as C++ has it: attributes, and arguments of kernels.
//
// Written by `python -m allmem_ops.cpp_header`; change the table, not this file.
//
// Arguments are trusted: whoever fills them has checked them. `present_*` may be the same memory as
// `past_*`; no other two may overlap. What belongs to an input or output that a node lacks is null.
// `Position` is the number itself, or where it lies on a device; `Activation` is void where
// `activation` says the type. `each` calls visit(name, member) for every member.
#pragma once

#include <stdint.h>

#include <limits>

#include "element.h"
#include "per_head.h"

namespace allmem {

"""


def header() -> str:
    """The whole text of the header."""
    parts = [
        f"static_assert(static_cast<int>(Element::{_element(name)}) == {index}, "
        f'"ELEMENTS of allmem_ops/contract.py");'
        for index, name in enumerate(ELEMENTS)
    ]
    text = _HEAD + "\n".join(parts) + "\n"
    seen: set[str] = set()  # operators may share an enumeration
    for prefix, operator in PREFIXES.items():
        for part in _operator(prefix, operator):
            text += "" if part in seen else f"\n{part}\n"
            seen.add(part)
    return text + "\n}  // namespace allmem\n"


def _element(name: str) -> str:
    return "k" + {"bfloat16": "BFloat16"}.get(name, name.capitalize())


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _operator(prefix: str, operator: Operator) -> Iterator[str]:
    yield f"// {operator.name}"
    for attribute in operator.attributes:
        if attribute.kind == "string":
            choices = ", ".join(_choice(attribute, c).split("::")[1] for c in attribute.choices)
            yield f"enum class {_camel(attribute.name)} {{ {choices} }};"
    yield _attributes(prefix, operator)
    if operator.sizes:
        yield _struct(f"{prefix}Sizes", [("int64_t", name) for name in operator.sizes])
        yield _names(f"{prefix}Input", operator.inputs)
        yield _names(f"{prefix}Output", operator.outputs)
        yield _arguments(prefix, operator)


def _choice(attribute: Attribute, choice: Value) -> str:
    return f"{_camel(attribute.name)}::k{_camel(str(choice))}"


def _struct(name: str, members: list[tuple[str, str]], *more: str) -> str:
    lines = [f"struct {name} {{", *(f"  {kind} {member};" for kind, member in members), ""]
    for block in more:
        lines += [block, ""]
    lines += ["  template <typename Visit>", "  void each(Visit&& visit) {"]
    lines += [f'    visit("{member}", {member});' for _, member in members]
    return "\n".join([*lines, "  }", "};"])


def _names(prefix: str, tensors: tuple[Tensor, ...]) -> str:
    names = "".join(f'    "{tensor.name}",\n' for tensor in tensors)
    return f"constexpr const char* k{prefix}Names[] = {{\n{names}}};"


def _attributes(prefix: str, operator: Operator) -> str:
    name = f"{prefix}Attributes"
    fields = operator.kernel_fields
    members = [(_field_type(field), field.name) for field in fields]
    lines = [
        "  // From a node; `Node` is Attributes of attributes.h, which checks and throws.",
        "  template <typename Node>",
        f"  static {name} read(const Node& node) {{",
        f"    {name} out{{}};",
    ]
    shown = {field.name for field in fields}
    for attribute in operator.attributes:
        if attribute.name not in shown:
            lines.append(f"    const auto {attribute.name} = {_read(attribute)};")
    for field in fields:
        if isinstance(field.source, Attribute):
            told = " != 0" if field.type == "bool" else ""
            lines.append(f"    out.{field.name} = {_read(field.source)}{told};")
        else:
            lines.append(f"    out.{field.name} = {_condition(field.source, operator)};")
    lines += ["    return out;", "  }"]
    wrapped = (textwrap.fill(line, 100, subsequent_indent=" " * 8) for line in lines)
    return _struct(name, members, "\n".join(wrapped))


def _field_type(field: KernelField) -> str:
    return _camel(field.name) if field.type == "choice" else _TYPES[field.type]


def _read(attribute: Attribute) -> str:
    """The call that reads and checks an attribute."""
    if attribute.kind == "string":
        if attribute.default != attribute.choices[0]:
            raise ValueError(f"{attribute.name}: the default must be the first choice")
        choices = ", ".join(f'"{choice}"' for choice in attribute.choices)
        call = f'node.choice("{attribute.name}", {{{choices}}})'
        return f"static_cast<{_camel(attribute.name)}>({call})"
    if attribute.per_head:
        one = replace(attribute, kind="int")
        lowest, highest = _literal(one, one.minimum), _literal(one, one.native_maximum)
        return f'node.per_head("{attribute.name}", {lowest}, {highest})'
    default = "{}" if attribute.default is None else _literal(attribute, attribute.default)
    lowest = _literal(attribute, attribute.minimum)
    highest = _literal(attribute, attribute.native_maximum or attribute.maximum)
    kind = "integer" if attribute.kind == "int" else "number"
    return f'node.{kind}("{attribute.name}", {default}, {lowest}, {highest})'


def _literal(attribute: Attribute, value: Any) -> str:
    if value is None:
        kind = "int64_t" if attribute.kind == "int" else "float"
        return f"std::numeric_limits<{kind}>::max()"
    return str(int(value)) if attribute.kind == "int" else f"{float(value)!r}f"


def _condition(flag: Flag, operator: Operator) -> str:
    by_name = {attribute.name: attribute for attribute in operator.attributes}
    parts = []
    for name, allowed in flag.when:
        either = " || ".join(f"{name} == {_choice(by_name[name], choice)}" for choice in allowed)
        parts.append(f"({either})" if len(flag.when) > 1 and len(allowed) > 1 else either)
    return " && ".join(parts)


def _arguments(prefix: str, operator: Operator) -> str:
    """The struct that kernels take: sizes, attributes, element types, addresses."""
    tensors = (*operator.inputs, *operator.outputs)
    members = [("Element", "activation")]
    if any(tensor.element == "cache" for tensor in tensors):
        members.append(("Element", "cache"))
    for tensor in tensors:
        constant = "const " if tensor in operator.inputs else ""
        kind = f"{constant}{_POINTERS.get(tensor.element, '')}*"
        members.append(("Position" if tensor.name == "position" else kind, tensor.name))
    bases = f"{prefix}Sizes, {prefix}Attributes"
    text = _struct(f"{prefix}Fields : {bases}", members)
    inherited = "".join(f"    {base}::each(visit);\n" for base in bases.split(", "))
    text = text.replace("each(Visit&& visit) {\n", f"each(Visit&& visit) {{\n{inherited}")
    return f"template <typename Activation, typename Position>\n{text}"


def main() -> None:
    """Write the header."""
    HEADER.write_text(header(), encoding="utf-8")
    print(HEADER)


if __name__ == "__main__":
    main()
