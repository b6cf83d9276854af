"""Checks, at the end of an export, that the graph computes what the PyTorch model computes.

The same tokens go through PyTorch in one pass, and through ONNX Runtime in one pass and in random
pieces, with our library and with the function bodies; logits and every state tensor must agree.

PyTorch gets the weights as they are stored, each of which has to be within its format's rounding of
the model's (see `stored_weights`). What is multiplied in integers is compared twice: with float32
inputs, where nothing but the weights is rounded and the tolerance is that of any float32 export,
and as it is shipped, inputs rounded to eight bits as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from allmem_exporters.errors import ExportError
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.modeling import AllMemForCausalLM, pieces
from allmem_exporters.model.state import AllMemState, state_spec
from allmem_exporters.onnx.float_noise import Reading, float_noise, read_text
from allmem_exporters.quantization.float32 import Float32
from allmem_exporters.quantization.formats import stored_format, widen_inputs
from allmem_exporters.quantization.stored_format import StoredFormat, StoredMatrix
from allmem_exporters.quantization.stored_weights import stored_matrices, take_stored_weights
from allmem_runtime.spec import (
    GRAPH_FILE,
    INPUT_IDS,
    LOGIT_INDEX,
    LOGITS,
    POSITION,
    StateSpec,
    past_name,
    present_name,
)

SAMPLED_ROWS = 64

Cuts = Sequence[tuple[int, int]]
"""(first, last + 1) of each piece."""

TOLERANCE = {"float32": 1e-4, "float16": 2e-3, "int8": 2e-2}
"""Relative RMS of logits and states, by the type of the key/value cache.

With a float32 cache sums in another order are all there is: some 1e-6 in a model of 30 layers. In
a float16 cache a key that lies near the middle between two numbers may fall to either side, and
30 layers make 2e-4 of the logits and 5e-4 of the values out of that; PyTorch against itself in
float64 shows the same. A wrong mask, position, boundary or layout shows as 1e-1 and more.
"""
STEADY = 2e-5
"""Relative RMS by which PyTorch's float32 may be off its own float64 on a text that is compared.

Where a comparison fails on a text that is less steady than that, another text is drawn, and no
tolerance changes: see `float_noise`. SmolLM2-135M with a trained memory has 1e-4 on one text in
three, and 5e-6 to 1e-5 on the others.
"""
MOST_TEXTS = 6
ROUNDED_INPUTS_TOLERANCE = 0.3
"""The same where inputs of products are rounded to eight bits, in whole chunks only.

Each product is off by a hundredth, and layers add that up: SmolLM2-135M in int4 ends with 1.6e-2 in
the logits and 8.7e-2 in the values of layer 19, where float32 inputs have 1.5e-4 and 5e-4. What
is wrong with a weight shows in the comparison with float32 inputs; this one shows whether the
kernels for integers do their work.
"""

NARROW_ACTIVATIONS_TOLERANCE = 3e-2
"""The same for float16 activations.

Every layer rounds the stream some ten times, by 2e-4 each, and later layers amplify that. In
SmolLM2-135M 1,601 random tokens end with 1.2e-3 in the logits and 1.3e-2 in the values of layer 19;
after 700 tokens it is 1e-3 and 4e-3 where PyTorch's own float16 has 1e-3 and 5e-3. What is wrong
shows as 1e-1 and more here, too, and what overflows as not finite.
"""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Relative RMS differences of one way to run the graph."""

    operators: str
    cutting: str
    logits: float
    state: float
    worst_state: str


class GraphRunner:
    """Steps an exported graph with plain arrays; simple on purpose, for comparison only.

    Args:
        folder: the export.
        state: of the model.
        native: with our library, or with the function bodies.
        wide: products of integers take their inputs as they are, not rounded to eight bits.
    """

    def __init__(self, folder: Path, state: StateSpec, *, native: bool, wide: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if native:
            from allmem_ops import library

            library.register(options)
        graph: str | bytes = str(folder / GRAPH_FILE)
        if wide:
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
            graph = _with_wide_inputs(folder)
        self.session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
        self.spec = state

    def read(
        self, tokens: Sequence[int], cuts: Cuts, rows: Sequence[int]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.floating]]]:
        """Read a text in the given pieces.

        Args:
            tokens: ids of the whole text.
            cuts: (first, last + 1) of each piece, none crossing a chunk boundary.
            rows: which tokens want logits, ascending.

        Returns:
            Logits [rows, vocab_size] and the state tensors in the order of the specification.
        """
        state = [np.zeros(t.shape, t.element) for _, t in self.spec]
        wanted = [LOGITS, *(present_name(layer, t.name) for layer, t in self.spec)]
        logits = []
        for first, end in cuts:
            here = [row - first for row in rows if first <= row < end]
            feed = {
                INPUT_IDS: np.array([tokens[first:end]], np.int64),
                POSITION: np.array([first], np.int64),
                LOGIT_INDEX: np.array(here, np.int64),
            }
            for (layer, tensor), array in zip(self.spec, state, strict=True):
                feed[past_name(layer, tensor.name)] = array
            found, *state = self.session.run(wanted, feed)
            logits.append(found[0])
        return np.concatenate(logits), state


_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


def _with_wide_inputs(folder: Path) -> bytes:
    """The graph with products of integers whose inputs are float32."""
    model = onnx.load(folder / GRAPH_FILE, load_external_data=False)
    widen_inputs(model)
    serialized: bytes = model.SerializeToString()
    return serialized


def random_cuts(length: int, chunk: int, seed: int) -> list[tuple[int, int]]:
    """Pieces of 1 to ``chunk`` tokens, cut at chunk boundaries as well."""
    rng = np.random.default_rng(seed)
    edges, at = [0], 0
    while at < length:
        # Sizes are drawn evenly on a logarithmic scale, so that single tokens are common too.
        at += max(1, int(np.exp(rng.uniform(0, np.log(chunk + 1)))))
        at = min(at, length, (edges[-1] // chunk + 1) * chunk)
        edges.append(at)
    return list(zip(edges, edges[1:], strict=False))


def validate(
    folder: Path,
    model: AllMemForCausalLM,
    *,
    storage: str = "float32",
    matmul_kernel: str | None = None,
    stored: Mapping[str, StoredMatrix] | None = None,
    activations: str = "float32",
    tokens: int | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> list[Agreement]:
    """Compare an exported folder with the model it came from.

    Args:
        folder: the export.
        model: in float32; its matrices become those that are stored, in place.
        storage: how the export's weights are stored.
        matmul_kernel: who multiplies them where they are integers, as in ``export``.
        stored: what ``store`` put into the export's graph; by default the model's matrices are
            stored again.
        activations: type of the export's token stream.
        tokens: length of the random text; by default long enough for the window to go round.
        seed: of the text and of the random cutting.
        report: is told each result as a line.

    Returns:
        One row for each way of running the graph.

    Raises:
        ExportError: a difference exceeds the tolerance, something is not finite, or the model
            enlarges rounding so much that no text can be compared.
    """
    stored_as = stored_format(storage, matmul_kernel)
    if activations == "float32" and not isinstance(stored_as, Float32):
        if stored is None:
            stored = stored_matrices(model, stored_as)
        _take_weights(model, stored_as, stored, report)
    tolerance = TOLERANCE[model.config.cache_dtype]
    if activations != "float32":
        tolerance = NARROW_ACTIVATIONS_TOLERANCE
    for attempt in range(MOST_TEXTS):
        drawn = _draw(model.config, tokens, seed + attempt)
        try:
            return list(_compare(folder, model, drawn, stored_as, tolerance, report))
        except _Differs:
            own = float_noise(model, drawn.tokens, drawn.rows)
            if own <= STEADY:
                raise
        report(f"PyTorch's float32 is off its float64 by {own:.1e} on this text; another is drawn")
    raise ExportError(
        f"The export cannot be compared with PyTorch: on each of {MOST_TEXTS} random texts the "
        f"model itself makes more than {STEADY:.0e} out of float32's rounding.",
        "`--no-check` exports it without the comparison.",
    )


def _take_weights(
    model: AllMemForCausalLM,
    stored_as: StoredFormat,
    stored: Mapping[str, StoredMatrix],
    report: Callable[[str], None],
) -> None:
    found = take_stored_weights(model, stored)
    report(
        f"{'stored weights':<15}  {found.matrices} matrices of {stored_as.description}: "
        f"{found.nbytes / 2**20:.1f} MiB, errors up to {found.worst:.2f} of what rounding may "
        f"leave ({found.worst_name})"
    )


@dataclass(frozen=True, slots=True)
class _Text:
    """Random tokens, the rows whose logits are compared, and ways to cut it."""

    tokens: list[int]
    rows: list[int]
    whole: Cuts
    random: Cuts


def _draw(config: AllMemConfig, length: int | None, seed: int) -> _Text:
    length = length or config.window + config.sinks + config.chunk // 2 + 1
    rng = np.random.default_rng(seed)
    text = rng.integers(0, config.vocab_size, length).tolist()
    rows = sorted({length - 1, *rng.integers(0, length, SAMPLED_ROWS).tolist()})
    return _Text(
        text, rows, pieces(0, length, config.chunk), random_cuts(length, config.chunk, seed)
    )


def _compare(
    folder: Path,
    model: AllMemForCausalLM,
    text: _Text,
    stored_as: StoredFormat,
    tolerance: float,
    report: Callable[[str], None],
) -> Iterator[Agreement]:
    spec = state_spec(model.config)
    names = [present_name(layer, tensor.name) for layer, tensor in spec]
    truth = read_text(model, text.tokens, text.rows, AllMemState.blank(model.config))
    quantized = stored_as.kernel is not None
    both = [("whole chunks", text.whole), ("random pieces", text.random)]
    ways = [("library", True, quantized, tolerance, both)]
    ways += [("function bodies", False, quantized, tolerance, both)]
    if quantized:
        ways += [("8-bit inputs", True, False, ROUNDED_INPUTS_TOLERANCE, both[:1])]
    for name, native, wide, allowed, cuttings in ways:
        runner = GraphRunner(folder, spec, native=native, wide=wide)
        for cutting, cuts in cuttings:
            found = Reading(*runner.read(text.tokens, cuts, text.rows))
            logits, *states = found.apart(truth)
            worst = int(np.argmax(states))
            row = Agreement(name, cutting, logits, states[worst], names[worst])
            _check(row, allowed, [found.logits, *found.state])
            report(
                f"{row.operators:<15}  {row.cutting:<13}  logits {row.logits:.1e}  "
                f"state {row.state:.1e} ({row.worst_state})"
            )
            yield row
        # Before the next one is opened: each may hold all matrices in float32.
        del runner


class _Differs(ExportError):
    """The graph is finite, and computes something else."""


def _check(row: Agreement, allowed: float, arrays: Sequence[NDArray[np.floating]]) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise ExportError(f"The exported graph ({row.operators}, {row.cutting}) is not finite.")
    if max(row.logits, row.state) > allowed:
        raise _Differs(
            f"The exported graph ({row.operators}, {row.cutting}) differs from PyTorch: logits by "
            f"{row.logits:.1e}, {row.worst_state} by {row.state:.1e}; allowed are {allowed:.0e}.",
            "This is a defect of the exporter: please report it with the model's config.json.",
        )
