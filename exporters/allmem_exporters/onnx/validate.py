"""Checks, at the end of an export, that the graph computes what PyTorch computes.

Random tokens are read with PyTorch, one layer in memory at a time. Cut out of the exported file,
each layer of the graph reads the same input as PyTorch's. What attention and memory add, what the
feed-forward network adds, the next norm and every state tensor must agree, and so must the logits
of the head. At the end the whole graph reads the text as it is shipped.

Layers differ in their weights alone. So all of them run with our library, and three of them, the
first, the middle and the last, with the function bodies as well, in random pieces as in whole
chunks.

PyTorch gets the weights as they are stored, each of which has to be within its format's rounding of
the model's (see `stored_weights`). What is multiplied in integers is compared twice in every layer:
with float32 inputs, where nothing but the weights is rounded and the tolerance is that of any
float32 export (in random pieces in these three layers alone); and as it is shipped, inputs rounded
to eight bits as well.

Where a comparison fails, it may be rounding alone that the model enlarges so much on this text: if
PyTorch's own does the same, another text is drawn. Layers that agreed are not compared again. See
`float_noise` and `rounding_noise`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from allmem_exporters.errors import ExportError
from allmem_exporters.model.weights import ModelWeights
from allmem_exporters.onnx.agreement import Agreement, Differs
from allmem_exporters.onnx.float_noise import float_noise
from allmem_exporters.onnx.layer_check import ROUNDED_INPUTS_TOLERANCE, LayerCheck
from allmem_exporters.onnx.reference import Reference
from allmem_exporters.onnx.room import peak_memory
from allmem_exporters.onnx.rounding_noise import rounding_noise
from allmem_exporters.onnx.sample_text import draw
from allmem_exporters.onnx.stored_file import StoredFile
from allmem_exporters.onnx.weight_stream import TABLES, MatrixStream
from allmem_exporters.progress import Progress
from allmem_exporters.quantization.float32 import Float32
from allmem_exporters.quantization.formats import stored_format
from allmem_exporters.quantization.stored_format import StoredMatrix
from allmem_exporters.quantization.stored_weights import StoredWeights, stored_matrices
from allmem_runtime.engine.malloc import give_heap_back
from allmem_runtime.quantities import format_bytes

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
UNSTEADY_IN_INTEGERS = ROUNDED_INPUTS_TOLERANCE / 2
"""Relative RMS of a state from which on PyTorch, with inputs of products rounded as the whole graph
rounds them, tells that a text cannot be compared in integers: see `rounding_noise`."""
MOST_TEXTS = 6

NARROW_ACTIVATIONS_TOLERANCE = 3e-2
"""The same for float16 activations.

Every layer rounds the stream some ten times, by 2e-4 each, and later layers amplify that. In
SmolLM2-135M 1,601 random tokens end with 1.2e-3 in the logits and 1.3e-2 in the values of layer 19;
after 700 tokens it is 1e-3 and 4e-3 where PyTorch's own float16 has 1e-3 and 5e-3. What is wrong
shows as 1e-1 and more here, too, and what overflows as not finite.
"""


def validate(
    folder: Path,
    weights: ModelWeights,
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
        weights: of the model.
        storage: how the export's weights are stored.
        matmul_kernel: who multiplies them where they are integers, as in ``export``.
        stored: what ``store`` put into the export's graph, to be read from its file; by default the
            model's matrices are stored again, in memory.
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
    taken: StoredWeights | None = None
    if activations == "float32" and not isinstance(stored_as, Float32):
        if stored is None:
            taken = StoredWeights(stored_matrices(MatrixStream(weights), stored_as, TABLES))
        else:
            taken = StoredWeights(StoredFile(folder, stored, TABLES))
    tolerance = TOLERANCE[weights.config.cache_dtype]
    if activations != "float32":
        tolerance = NARROW_ACTIVATIONS_TOLERANCE
    reference = Reference(weights, taken)
    first = draw(weights.config, tokens, seed)
    check = LayerCheck(folder, reference, first, stored_as, tolerance, report)
    for attempt in range(1, MOST_TEXTS + 1):
        try:
            rows = check.run()
        except Differs:
            own = _own_rounding(check, report)
            if own is None:
                raise
        else:
            if taken is not None:
                found = taken.rounding()
                report(
                    f"{'stored weights':<15}  {found.matrices} matrices of "
                    f"{stored_as.description}: {format_bytes(found.nbytes)}, errors up to "
                    f"{found.worst:.2f} of what rounding may leave ({found.worst_name})"
                )
            report(
                f"compared: {check.scope()} on {len(check.text.tokens):,} tokens, "
                f"{len(check.text.rows)} rows of the head; "
                f"{format_bytes(peak_memory())} of memory at most"
            )
            return rows
        report(f"{own} on this text; another is drawn")
        give_heap_back()  # before the whole graph is opened once more
        check.take(draw(weights.config, tokens, seed + attempt))
    raise ExportError(
        f"The export cannot be compared with PyTorch: on each of {MOST_TEXTS} random texts the "
        "model itself makes too much out of rounding.",
        "`--no-check` exports it without the comparison.",
    )


def _own_rounding(check: LayerCheck, report: Callable[[str], None]) -> str | None:
    """What PyTorch itself makes of rounding where a comparison failed; None if that is little.

    Where the whole graph differs, whose products round their inputs, PyTorch with inputs rounded
    likewise comes first: it tells at the layer that differs.
    """
    reference, text = check.reference, check.text
    if check.integers and check.apart is not None:
        progress = Progress("rounding inputs in PyTorch", report)
        own = rounding_noise(reference, text.tokens, check.apart, progress)
        if own > UNSTEADY_IN_INTEGERS:
            return (
                f"PyTorch with inputs of products rounded to eight bits is off by {own:.1e} in "
                f"layer {check.apart.index}"
            )
    progress = Progress("measuring PyTorch's own rounding", report)
    own = float_noise(reference, text.tokens, text.rows, progress, enough=STEADY)
    return f"PyTorch's float32 is off its float64 by at least {own:.1e}" if own > STEADY else None
