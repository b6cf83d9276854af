"""The step of one token on CUDA, captured as a CUDA graph once and replayed for every token."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime as ort

from allmem_runtime import spec
from allmem_runtime.engine.devices import Device
from allmem_runtime.engine.piece_limits import Logits
from allmem_runtime.engine.tensors import on_device

GRAPH_ID = "gpu_graph_id"
UNCAPTURED = "-1"

# Whether a graph can be let go depends on the version of ONNX Runtime, and under an id once used
# it would replay the old one, so no id is ever used again.
_NUMBERS = itertools.count(1)


def run_options(graph: str) -> ort.RunOptions:
    """Options of a run under a graph id, or ``UNCAPTURED``."""
    options = ort.RunOptions()
    options.add_run_config_entry(GRAPH_ID, graph)
    return options


class CapturedStep:
    """The step of one token with logits, its inputs and outputs at fixed device addresses.

    Capturing makes ONNX Runtime run the model more often than it was asked to: some times to
    let its memory settle, once to record, once to replay. The state is to be blank before, and to
    be made blank after.

    Args:
        session: of a model loaded with CUDA graphs.
        bind: makes a binding with the state of each set bound; there are as many as ``sets``.
        sets: sets of state tensors that take turns.
        vocab: width of the logits.
        device: where the model runs.

    Attributes:
        ids: the graph ids, one for each set; no two steps of a process share one.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        bind: Callable[[int], ort.IOBinding],
        sets: int,
        vocab: int,
        device: Device,
    ) -> None:
        self._session = session
        self._host = np.zeros((1, 1), np.int64), np.zeros(1, np.int64)
        self._token = on_device(self._host[0], device)
        self._position = on_device(self._host[1], device)
        self._row = on_device(np.zeros(1, np.int64), device)  # the piece's only token
        self._logits = on_device(np.zeros((1, 1, vocab), np.float32), device)
        self.ids: Sequence[str] = [str(next(_NUMBERS)) for _ in range(sets)]
        self._runs = [(self._bound(bind(i)), run_options(self.ids[i])) for i in range(sets)]

    def _bound(self, binding: ort.IOBinding) -> ort.IOBinding:
        binding.bind_ortvalue_input(spec.INPUT_IDS, self._token)
        binding.bind_ortvalue_input(spec.POSITION, self._position)
        binding.bind_ortvalue_input(spec.LOGIT_INDEX, self._row)
        binding.bind_ortvalue_output(spec.LOGITS, self._logits)
        return binding

    def capture(self) -> None:
        """Record the step of each set; the state is not to be trusted after this."""
        for binding, options in self._runs:
            self._session.run_with_iobinding(binding, options)

    def run(self, at: int, token: int, position: int) -> Logits:
        """Replay the step of set ``at``.

        Returns:
            [1, vocab_size], the only thing copied to the host.
        """
        ids, positions = self._host
        ids[0, 0], positions[0] = token, position
        self._token.update_inplace(ids)
        self._position.update_inplace(positions)
        binding, options = self._runs[at]
        self._session.run_with_iobinding(binding, options)
        logits: Logits = self._logits.numpy()[0]
        return logits
