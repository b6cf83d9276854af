"""The ONNX function bodies as a backend: standard operators on a stock ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
from cases import BACKENDS, Arrays
from native import node_model
from sessions import asleep

from allmem_exporters.onnx.attention_function import attention_function
from allmem_exporters.onnx.memory_function import memory_function
from allmem_ops.contract import Operator, Value


class Portable:
    """Runs a node whose only implementation is its function body."""

    def run(
        self,
        operator: Operator,
        inputs: Arrays,
        attributes: Mapping[str, Value],
        *,
        in_place: bool = False,
    ) -> Arrays:
        """See ``cases.Backend``.

        Raises:
            ValueError: in place is asked for, which bodies cannot do.
        """
        if in_place:
            raise ValueError("function bodies need separate buffers for the old and new state")
        full = operator.attribute_values(dict(attributes))
        model = onnx.load_from_string(node_model(operator, inputs, full))
        model.functions.append(self._body(operator, inputs, full))
        model.opset_import[0].version = 20
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), asleep(), providers=["CPUExecutionProvider"]
        )
        names = [tensor.name for tensor in operator.outputs]
        return dict(zip(names, session.run(names, inputs), strict=True))

    def _body(
        self, operator: Operator, inputs: Arrays, attributes: dict[str, Value]
    ) -> onnx.FunctionProto:
        if operator.name == "SlidingWindowAttention":
            head_dim = inputs["past_key"].shape[-1]
            window = attributes["window"]
            kv_heads = len(window) if isinstance(window, tuple) else inputs["past_key"].shape[1]
            return attention_function(
                query_heads=inputs["qkv"].shape[2] // head_dim - 2 * kv_heads,
                kv_heads=kv_heads,
                head_dim=head_dim,
                rotary_half=inputs["inverse_frequencies"].shape[0],
                attributes=attributes,
                cache=np.dtype(inputs["past_key"].dtype).name,
                sink_logits="sink_logits" in inputs,
            )
        _, heads, _, hidden, memory_dim = inputs["past_weights"].shape
        return memory_function(
            heads=heads,
            memory_dim=memory_dim,
            hidden=hidden,
            kernel=inputs["conv_weight"].shape[2],
            attributes=attributes,
        )


BACKENDS["function body"] = Portable
