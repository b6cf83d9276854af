"""The PyTorch operators as a backend."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from cases import BACKENDS, Arrays

from allmem_exporters.model.operators import (
    quantized_attention,
    sliding_window_attention,
    ttt_memory,
)
from allmem_ops.contract import Operator, Value
from allmem_ops.schema import QUANTIZED_ATTENTION

FUNCTIONS = {"SlidingWindowAttention": sliding_window_attention, "TTTMemory": ttt_memory}


class Torch:
    """Runs an operator eagerly in the types it is given."""

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
            ValueError: in place is asked for; these operators make new states.
        """
        if in_place:
            raise ValueError("PyTorch operators return new states")
        tensors = [torch.from_numpy(inputs[tensor.name]) for tensor in operator.inputs]
        quantized = operator is QUANTIZED_ATTENTION
        function = quantized_attention if quantized else FUNCTIONS[operator.name]
        outputs = function(*tensors, **attributes)
        names = [tensor.name for tensor in operator.outputs]
        return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}


BACKENDS["torch"] = Torch
