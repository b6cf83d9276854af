"""The contract between exporter and runtime: names of files and tensors, and the state.

It knows no tensor library and opens no file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

SPEC_VERSION = 1

GRAPH_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
MANIFEST_FILE = "allmem.json"
TOKENIZER_FILE = "tokenizer.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
GENERATION_FILE = "generation_config.json"
METADATA_KEY = "allmem.manifest"
"""Key of the graph's metadata under which the same manifest is kept as JSON."""
DECODER_KEY = "decoder_sha256"
"""Key of the manifest's source: SHA-256 over the decoder's weights, memories left out."""

INPUT_IDS = "input_ids"  # [1, time] int64
POSITION = "position"  # [1] int64, absolute index of the first token
LOGIT_INDEX = "logit_index"  # [rows] int64, which tokens of the piece want logits; may be empty
LOGITS = "logits"  # [1, rows, vocab_size] float32

ElementType = Literal["float32", "float16", "int8"]
BYTES = {"float32": 4, "float16": 2, "int8": 1}


def past_name(layer: int, tensor: str) -> str:
    """Graph input that holds a state tensor before the step."""
    return f"past.{layer}.{tensor}"


def present_name(layer: int, tensor: str) -> str:
    """Graph output that holds a state tensor after the step."""
    return f"present.{layer}.{tensor}"


@dataclass(frozen=True, slots=True)
class StateTensor:
    """One state tensor of a layer: the part it plays, its shape and element type."""

    name: str
    shape: tuple[int, ...]
    element: ElementType

    @property
    def nbytes(self) -> int:
        """Bytes in one layer."""
        return math.prod(self.shape) * BYTES[self.element]


@dataclass(frozen=True, slots=True)
class StateSpec:
    """All state of a model, layer by layer. Its size never changes."""

    layers: tuple[tuple[StateTensor, ...], ...]

    @classmethod
    def build(
        cls,
        *,
        layers: int,
        kv_heads: int,
        head_dim: int,
        window: int,
        sinks: int,
        cache: ElementType,
        memory_heads: int,
        memory_width: int,
        memory_hidden: int,
        kernel: int,
        windows: Sequence[Sequence[int]] | None = None,
        local_layers: Sequence[int] = (),
        local_window: int | None = None,
    ) -> StateSpec:
        """The state of a model with these sizes; batch 1.

        All heads see ``window`` tokens unless there are ``windows``: of each layer, of each
        key/value head. The rings of a layer's heads then lie one after the other in one tensor.
        Layers in ``local_layers`` see ``local_window`` tokens and keep no sinks.
        """
        fast = (1, memory_heads, 3, memory_hidden, memory_width // memory_heads)
        memory = (
            StateTensor("weights", fast, "float32"),
            StateTensor("momentum", fast, "float32"),
            StateTensor("gradient", fast, "float32"),
            StateTensor("momentum_sum", (1, memory_heads), "float32"),
            StateTensor("conv_tail", (1, 3, kernel - 1, memory_width), "float32"),
        )

        local = frozenset(local_layers)

        def layer(at: int) -> tuple[StateTensor, ...]:
            slots = local_window if at in local and local_window else sinks + window
            ring: tuple[int, ...] = (1, kv_heads, slots, head_dim)
            scale: tuple[int, ...] = (1, kv_heads, 2, slots)
            if windows:
                rows = sum(sinks + head for head in windows[at])
                ring, scale = (1, rows, head_dim), (1, 2 * rows)
            return (
                StateTensor("key", ring, cache),
                StateTensor("value", ring, cache),
                *memory,
                # One for each int8 key of a head, then for each of its values.
                *((StateTensor("scale", scale, "float32"),) if cache == "int8" else ()),
            )

        return cls(tuple(map(layer, range(layers))))

    def __iter__(self) -> Iterator[tuple[int, StateTensor]]:
        """Every (layer, tensor), layer after layer."""
        for at, tensors in enumerate(self.layers):
            for tensor in tensors:
                yield at, tensor

    @property
    def nbytes(self) -> int:
        """Bytes of the whole state."""
        return sum(tensor.nbytes for _, tensor in self)

    @property
    def digest(self) -> str:
        """SHA-256 over names, shapes and types: two states fit each other iff it is equal."""
        rows = [[[t.name, list(t.shape), t.element] for t in layer] for layer in self.layers]
        alike = all(row == rows[0] for row in rows)
        said = [len(rows), rows[0]] if alike else rows
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()
