"""The PyTorch operators as a backend."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from cases import BACKENDS, Arrays

from allmem_exporters.model.operators import attention_operator, ttt_memory
from allmem_ops.contract import Operator, Value


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
        names = [tensor.name for tensor in operator.inputs if tensor.name in inputs]
        tensors = [torch.from_numpy(inputs[name]) for name in names]
        function = ttt_memory
        if operator.name == "SlidingWindowAttention":
            function = attention_operator(attributes, tensors[5 : 5 + len(operator.state)])
        outputs = function(*tensors, **attributes)
        names = [tensor.name for tensor in operator.outputs]
        return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}


BACKENDS["torch"] = Torch
