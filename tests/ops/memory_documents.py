"""Random documents for the memory's tests, and running the reference over them piece by piece."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from allmem_ops.reference import ttt_memory
from allmem_ops.schema import TTT_MEMORY

HEADS, DIM, HIDDEN, CHUNK = 2, 4, 5, 6
WIDTH = HEADS * DIM
STATE = ("weights", "momentum", "gradient", "momentum_sum", "conv_tail")
CONSTANTS = ("conv_weight", "norm_gain", "initial_weights", "initial_norms")

Arrays = dict[str, np.ndarray]


def options(**changed: Any) -> dict[str, Any]:
    """Every attribute of the operator, defaults where nothing is said, and a chunk of 6."""
    return TTT_MEMORY.attribute_values({"chunk": CHUNK, **changed})


def norms_of(packed: np.ndarray) -> np.ndarray:
    """Norms along the input dimension of [heads, 3, hidden, memory_dim], down transposed."""
    return np.concatenate(
        [
            np.linalg.norm(packed[:, 0], axis=2),
            np.linalg.norm(packed[:, 1], axis=2),
            np.linalg.norm(packed[:, 2], axis=1),
        ],
        axis=1,
    )


def document(time: int, *, batch: int = 1, kernel: int = 3, seed: int = 0) -> Arrays:
    """A document of random tokens and the constants of a random memory, in float64."""
    random = np.random.default_rng(seed)
    initial = random.normal(size=(HEADS, 3, HIDDEN, DIM))
    control = random.normal(size=(batch, time, 5 * HEADS))
    # Learning rates about 0.2: the clip of 0.1 is met, and without it nothing overflows.
    control[:, :, : 3 * HEADS] -= 1.5
    return {
        "qkv": random.normal(size=(batch, time, 3 * WIDTH)),
        "control": control,
        "conv_weight": random.normal(size=(3, WIDTH, kernel)),
        "norm_gain": random.uniform(0.5, 1.5, size=(3, HEADS, DIM)),
        "initial_weights": initial,
        "initial_norms": norms_of(initial),
    }


def blank_state(constants: Arrays, batch: int = 1, element: type = np.float64) -> Arrays:
    """Zeros: what a document starts with."""
    fast = (batch, HEADS, 3, HIDDEN, DIM)
    kernel = constants["conv_weight"].shape[2]
    shapes = (fast, fast, fast, (batch, HEADS), (batch, 3, kernel - 1, WIDTH))
    return {name: np.zeros(shape, element) for name, shape in zip(STATE, shapes, strict=True)}


def step(
    inputs: Arrays, state: Arrays, begin: int, end: int, attributes: dict[str, Any], at: int = 0
) -> tuple[np.ndarray, Arrays]:
    """One call over tokens ``begin`` to ``end`` of a document that starts at position ``at``."""
    output, *present = ttt_memory(
        inputs["qkv"][:, begin:end],
        inputs["control"][:, begin:end],
        at + begin,
        *(inputs[name] for name in CONSTANTS),
        *(state[name] for name in STATE),
        **attributes,
    )
    return output, dict(zip(STATE, present, strict=True))


def read(
    inputs: Arrays,
    attributes: dict[str, Any],
    *,
    cuts: Iterable[int] = (),
    state: Arrays | None = None,
    begin: int = 0,
    at: int = 0,
) -> tuple[np.ndarray, Arrays]:
    """Read the rest of a document from token ``begin``, cut at ``cuts`` and at every chunk."""
    batch, time, _ = inputs["qkv"].shape
    chunk = attributes["chunk"]
    state = blank_state(inputs, batch) if state is None else state
    ends = {i for i in range(begin + 1, time) if (at + i) % chunk == 0} | {*cuts, time}
    outputs = [inputs["qkv"][:, :0, :WIDTH]]
    for end in sorted(i for i in ends if i > begin):
        output, state = step(inputs, state, begin, end, attributes, at)
        outputs.append(output)
        begin = end
    return np.concatenate(outputs, axis=1), state


def relative_rms(actual: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the difference over that of what is expected."""
    if np.array_equal(actual, expected):
        return 0.0
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
