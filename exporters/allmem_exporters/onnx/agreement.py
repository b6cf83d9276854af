"""How far one way to run a graph is from PyTorch, and whether that is near enough."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from allmem_exporters.errors import ExportError
from allmem_exporters.onnx.float_noise import relative_rms


@dataclass(frozen=True, slots=True)
class Agreement:
    """Relative RMS differences of one way to run the graph.

    Attributes:
        operators: what computed it.
        cutting: of the text.
        logits: of the sampled tokens.
        state: of the worst state tensor or token stream.
        worst_state: its name.
    """

    operators: str
    cutting: str
    logits: float
    state: float
    worst_state: str

    def __str__(self) -> str:
        return (
            f"{self.operators:<15}  {self.cutting:<13}  logits {self.logits:.1e}  "
            f"state {self.state:.1e} ({self.worst_state})"
        )


class Differs(ExportError):
    """The graph is finite, and computes something else."""


@dataclass(slots=True)
class Comparison:
    """Collects differences of one way to run the graph; the first that is too large is an error.

    Args:
        operators: what computes it.
        cutting: of the text.
        allowed: the largest difference that may be.
    """

    operators: str
    cutting: str
    allowed: float
    found: dict[str, float] = field(default_factory=dict)
    _difference: float = 0.0
    _scale: float = 0.0

    def state(self, name: str, value: NDArray[np.floating], truth: NDArray[np.floating]) -> None:
        """Compare a tensor of the state, or a token stream.

        Raises:
            ExportError: it is not finite, or differs too much.
        """
        self._finite(value)
        self.found[name] = relative_rms(value, truth)
        self._small(self.found[name], f"{name} by {self.found[name]:.1e}")

    def logits(self, value: NDArray[np.floating], truth: NDArray[np.floating]) -> None:
        """Compare some columns of the logits; ``agreement`` looks at all of them together.

        Raises:
            ExportError: they are not finite.
        """
        self._finite(value)
        wide = truth.astype(np.float64)
        self._difference += float(np.square(value.astype(np.float64) - wide).sum())
        self._scale += float(np.square(wide).sum())

    def forget_logits(self) -> None:
        """Begin the logits anew, on another text; what was found in layers stays."""
        self._difference = self._scale = 0.0

    def agreement(self) -> Agreement:
        """Of everything that was compared.

        Raises:
            ExportError: the logits differ too much.
        """
        logits = 0.0
        if self._difference:
            logits = (self._difference / self._scale) ** 0.5 if self._scale else float("inf")
        worst = max(self.found, key=self.found.__getitem__)
        self._small(logits, f"logits by {logits:.1e}, {worst} by {self.found[worst]:.1e}")
        return Agreement(self.operators, self.cutting, logits, self.found[worst], worst)

    def _finite(self, array: NDArray[np.floating]) -> None:
        if not np.isfinite(array).all():
            raise ExportError(
                f"The exported graph ({self.operators}, {self.cutting}) is not finite."
            )

    def _small(self, error: float, what: str) -> None:
        if error > self.allowed:
            raise Differs(
                f"The exported graph ({self.operators}, {self.cutting}) differs from PyTorch: "
                f"{what}; allowed are {self.allowed:.0e}.",
                "This is a defect of the exporter: please report it with the model's config.json.",
            )
