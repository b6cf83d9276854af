"""A session whose memory can go back to blank while its window and place in the text stay.

What an answer owes to the memory is seen by taking the memory away before the question.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from allmem_runtime.errors import UsageError
from allmem_runtime.loaded_model import LoadedModel
from allmem_runtime.session.session import Session
from allmem_runtime.spec import past_name

FAST_WEIGHTS = "weights"
_ZEROED = ("momentum", "gradient", "momentum_sum", "conv_tail")

InitialWeights = dict[str, NDArray[Any]]
"""Fast weights no token was written to, by the name of their graph input."""


class EvaluationSession(Session):
    """A session that can forget what its memory holds, and nothing else."""

    def initial_weights(self) -> InitialWeights:
        """The fast weights before anything was written; the session must be new and is used up.

        The graph holds them and hands them out with its first step. That step commits nothing
        unless a chunk is a single token.

        Raises:
            UsageError: the model renews its memory at every token.
        """
        manifest = self.model.manifest
        if manifest.chunk < 2:
            raise UsageError(
                f"{self.model.name} renews its memory at every token; its initial weights cannot "
                "be read.",
                "Leave out the rows with :reset, or export with a larger chunk.",
            )
        self.feed([0])
        return self.fast_weights()

    def fast_weights(self) -> InitialWeights:
        """A copy of the fast weights that the next token is read with, by graph input."""
        tensors, layers = self._cursor.tensors, self.model.manifest.backbone.layers
        names = [past_name(layer, FAST_WEIGHTS) for layer in range(layers)]
        return {name: tensors.read(name).copy() for name in names}

    def forget_memory(self, initial: InitialWeights) -> None:
        """Blank the memory: initial weights, no momentum, no gradient, no convolution tail.

        Keys, values and the position stay, so the window still sees what it saw. An open chunk
        stays open; what is read next counts towards it.

        Args:
            initial: what ``initial_weights`` gave for the same model.
        """
        with self._operation("the memory is being blanked"):
            if not self.position:
                return  # the graph itself supplies the initial weights to the first token
            tensors = self._cursor.tensors
            for name, values in initial.items():
                tensors.write(name, values)
            for layer, tensor in self.model.manifest.state:
                if tensor.name in _ZEROED:
                    blank = np.zeros(tensor.shape, tensor.element)
                    tensors.write(past_name(layer, tensor.name), blank)


def initial_weights(model: LoadedModel) -> InitialWeights:
    """The fast weights of a blank memory."""
    return EvaluationSession(model, undo=False).initial_weights()
