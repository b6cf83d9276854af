"""The operator table told to ONNX: schemas in `onnx.defs`, and nodes for PyTorch's operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
import torch
from onnx import defs

from allmem_exporters import operators as _operators  # noqa: F401  (defines torch.ops.allmem)
from allmem_ops.schema import DOMAIN, OPERATORS, SLIDING_WINDOW_ATTENTION, TTT_MEMORY, Operator

_TYPES = {
    "activation": ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"],
    "cache": ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"],
    "float32": ["tensor(float)"],
    "int64": ["tensor(int64)"],
}
_KINDS = {
    "int": defs.OpSchema.AttrType.INT,
    "float": defs.OpSchema.AttrType.FLOAT,
    "string": defs.OpSchema.AttrType.STRING,
}


def register_schemas() -> None:
    """Make the operators known to `onnx.defs`, once per process."""
    for operator in OPERATORS.values():
        if not defs.has(operator.name, DOMAIN):
            defs.register_schema(_schema(operator))


def _schema(operator: Operator) -> defs.OpSchema:
    tensors = (*operator.inputs, *operator.outputs)
    return defs.OpSchema(
        operator.name,
        DOMAIN,
        operator.version,
        operator.doc,
        inputs=[defs.OpSchema.FormalParameter(t.name, t.element, t.doc) for t in operator.inputs],
        outputs=[defs.OpSchema.FormalParameter(t.name, t.element, t.doc) for t in operator.outputs],
        type_constraints=[
            (element, _TYPES[element], "") for element in sorted({t.element for t in tensors})
        ],
        attributes=[
            defs.OpSchema.Attribute(a.name, _KINDS[a.kind], a.doc, required=a.default is None)
            for a in operator.attributes
        ],
    )


def _translation(operator: Operator) -> Callable[..., Sequence[Any]]:
    """A function for `torch.onnx.export` that emits one node of ``operator``."""
    from onnxscript import values

    emit = getattr(values.Opset(DOMAIN, operator.version), operator.name)

    def translate(*inputs: Any, **attributes: Any) -> Any:
        return emit(*inputs, **attributes)

    return translate


def translation_table() -> dict[Any, Callable[..., Sequence[Any]]]:
    """What `torch.onnx.export` needs to turn our PyTorch operators into nodes."""
    register_schemas()
    return {
        torch.ops.allmem.sliding_window_attention.default: _translation(SLIDING_WINDOW_ATTENTION),
        torch.ops.allmem.ttt_memory.default: _translation(TTT_MEMORY),
    }


def opset_import() -> onnx.OperatorSetIdProto:
    """The import of our domain that a model needs."""
    return onnx.helper.make_opsetid(DOMAIN, max(o.version for o in OPERATORS.values()))
