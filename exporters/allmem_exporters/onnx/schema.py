"""The operator table for ONNX: schemas in `onnx.defs`, and nodes for PyTorch's operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnx import defs

from allmem_exporters.model import operators as _operators  # noqa: F401  (defines torch.ops.allmem)
from allmem_ops.contract import Operator, Tensor
from allmem_ops.products import EXPERT_MATMUL
from allmem_ops.schema import (
    ATTENTION_BY_HEAD,
    DOMAIN,
    KNOWN,
    QUANTIZED_ATTENTION,
    QUANTIZED_ATTENTION_BY_HEAD,
    SLIDING_WINDOW_ATTENTION,
    TTT_MEMORY,
    WHOLE_ATTENTION,
    with_sink_logits,
)

_TYPES = {
    "activation": ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"],
    "cache": ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(int8)"],
    "float32": ["tensor(float)"],
    "float16": ["tensor(float16)"],
    "int64": ["tensor(int64)"],
    "uint8": ["tensor(uint8)"],
}
_KINDS = {
    "int": defs.OpSchema.AttrType.INT,
    "ints": defs.OpSchema.AttrType.INTS,
    "float": defs.OpSchema.AttrType.FLOAT,
    "string": defs.OpSchema.AttrType.STRING,
}


def register_schemas() -> None:
    """Make the operators known to `onnx.defs`, once per process."""
    attentions = (QUANTIZED_ATTENTION, QUANTIZED_ATTENTION_BY_HEAD, WHOLE_ATTENTION)
    others = (one for one in KNOWN.values() if one.name != WHOLE_ATTENTION.name)
    for operator in (*attentions, *others):
        known = defs.has(operator.name, operator.version, DOMAIN) and defs.get_schema(
            operator.name, operator.version, DOMAIN
        )
        if not known or known.since_version != operator.version:
            defs.register_schema(_schema(operator))


def _parameter(tensor: Tensor, *, always: bool) -> defs.OpSchema.FormalParameter:
    options = defs.OpSchema.FormalParameterOption
    return defs.OpSchema.FormalParameter(
        tensor.name,
        tensor.element,
        tensor.doc,
        param_option=options.Single if always else options.Optional,
    )


def _schema(operator: Operator, *, scales: bool = False) -> defs.OpSchema:
    """The operator as ONNX knows it; ``scales`` are there, or may be left out."""
    tensors = (*operator.inputs, *operator.outputs)

    def parameters(those: tuple[Tensor, ...]) -> list[defs.OpSchema.FormalParameter]:
        return [_parameter(t, always=scales or not t.optional) for t in those]

    return defs.OpSchema(
        operator.name,
        DOMAIN,
        operator.version,
        operator.doc,
        inputs=parameters(operator.inputs),
        outputs=parameters(operator.outputs),
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

    def emitted_as(form: Operator, *inputs: Any, **attributes: Any) -> Any:
        opset = values.Opset(DOMAIN, form.version)
        schema = _schema(form, scales=all(one is not None for one in inputs))
        return values.Op(opset, form.name, schema)(*inputs, **attributes)

    def translate(*inputs: Any, **attributes: Any) -> Any:
        if operator.name != SLIDING_WINDOW_ATTENTION.name or len(inputs) == len(operator.inputs):
            return emitted_as(operator, *inputs, **attributes)
        *usual, sink_logits = inputs
        if sink_logits is None:
            return emitted_as(operator, *usual, **attributes)
        form = with_sink_logits(operator)
        usual += [None] * (len(form.inputs) - 1 - len(usual))
        return emitted_as(form, *usual, sink_logits, **attributes)

    return translate


def _expert_product(
    x: Any, expert: Any, matrix: Any, bias: Any = None, input_gate: str = "none"
) -> Any:
    """PyTorch's form, of float32 matrices, as a node."""
    from onnxscript import values

    opset = values.Opset(DOMAIN, EXPERT_MATMUL.version)
    emit = values.Op(opset, EXPERT_MATMUL.name, _schema(EXPERT_MATMUL))
    given = [x, expert, matrix] + ([] if bias is None else [None, None, bias])
    return emit(*given, width=matrix.shape[1], bits=32, input_gate=input_gate)


def translation_table() -> dict[Any, Callable[..., Sequence[Any]]]:
    """What `torch.onnx.export` needs to turn our PyTorch operators into nodes."""
    register_schemas()
    return {
        torch.ops.allmem.sliding_window_attention.default: _translation(SLIDING_WINDOW_ATTENTION),
        torch.ops.allmem.quantized_attention.default: _translation(QUANTIZED_ATTENTION),
        torch.ops.allmem.attention_by_head.default: _translation(ATTENTION_BY_HEAD),
        torch.ops.allmem.quantized_attention_by_head.default: _translation(
            QUANTIZED_ATTENTION_BY_HEAD
        ),
        torch.ops.allmem.ttt_memory.default: _translation(TTT_MEMORY),
        torch.ops.allmem.expert_matmul.default: _expert_product,
    }
