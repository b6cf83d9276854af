"""What PyTorch makes of a text, layer by layer: one layer's weights lie in memory at a time.

A layer depends on its own state and on what the layers before it made of the text, so reading the
whole text with one layer after the other is the same as reading it with the whole model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from allmem_exporters.model.decoder import DecoderLayer
from allmem_exporters.model.layers import capped
from allmem_exporters.model.modeling import pieces
from allmem_exporters.model.norms import NORMS, Norm, Place, scaled
from allmem_exporters.model.state import LayerState, blank_layer
from allmem_exporters.model.weights import (
    EMBEDDING,
    HEAD,
    LAST_NORM,
    ModelWeights,
    Table,
    load_layer,
)
from allmem_exporters.quantization.stored_weights import StoredWeights


@dataclass(frozen=True, slots=True)
class LayerReading:
    """What one layer makes of a text; each stream is [1, time, hidden_size].

    Args:
        index: of the layer.
        hidden: the token stream before it.
        normed: the same after the layer's norm, if it has one before its branches.
        mixed: what attention and memory add.
        added: what the feed-forward network adds.
        after: the token stream behind it.
        state: its state after the text.
    """

    index: int
    hidden: Tensor
    normed: Tensor
    mixed: Tensor
    added: Tensor
    after: Tensor
    state: LayerState


class Reference:
    """A model in PyTorch, of which one layer is loaded at a time.

    Args:
        weights: of the model.
        stored: the weights that an export stores in their place; None for the model's own.
    """

    def __init__(self, weights: ModelWeights, stored: StoredWeights | None) -> None:
        self.weights, self.stored = weights, stored
        self.config = weights.config

    def layer(self, index: int) -> DecoderLayer:
        """A layer in float32, with stored weights where there are such."""
        layer = load_layer(self.weights, index)
        if self.stored is not None:
            self.stored.take(layer, index)
        return layer

    def embed(self, tokens: Sequence[int]) -> Tensor:
        """The token stream before the first layer, [1, time, hidden_size]."""
        wanted = torch.tensor(tokens)
        hidden = torch.empty(len(tokens), self.config.hidden_size)
        for first, end, rows in self.table_pieces("embedding"):
            here = (wanted >= first) & (wanted < end)
            hidden[here] = rows[wanted[here] - first]
        return scaled(hidden[None], self.config.embedding_scale)

    def table_pieces(self, name: str) -> Iterator[tuple[int, int, Tensor]]:
        """(first row, last row + 1, rows) of ``embedding`` or ``head``, some mebibytes a piece."""
        tied = self.config.tie_word_embeddings or name == "embedding"
        table = Table(self.weights, EMBEDDING if tied else HEAD)
        for first, end in table.pieces(_ROW_MULTIPLE):
            if self.stored is None:
                yield first, end, table.rows(first, end)
            else:
                rows = self.stored.table_rows("embedding" if tied else "head", table, first, end)
                yield first, end, rows

    def read(self, tokens: Sequence[int]) -> Iterator[LayerReading]:
        """Read a text from blank states, layer by layer."""
        hidden = self.embed(tokens)
        for index in range(self.config.num_hidden_layers):
            found = read_layer(self.layer(index), index, hidden, blank_layer(self.config, index))
            hidden = found.after
            yield found

    def last_norm(self, hidden: Tensor) -> Tensor:
        """The token stream after the last norm."""
        return self.normed(self.config.num_hidden_layers, hidden)

    def normed(self, index: int, hidden: Tensor) -> Tensor:
        """The token stream as a layer reads it; behind the last layer, as the head does."""
        config = self.config
        last = index == config.num_hidden_layers
        name = NORMS[config.family.norms].get("before_mixing")
        if not last and not name:
            return hidden
        norm = Norm(config, config.hidden_size, config.head_scale if last else 1.0)
        gain = self.weights.tensor(LAST_NORM if last else f"model.layers.{index}.{name}.weight")
        norm.weight = nn.Parameter(gain.to(hidden.dtype), requires_grad=False)
        normed: Tensor = norm(hidden)
        return normed

    def logits(self, rows: Tensor, table: Tensor) -> Tensor:
        """Of rows [rows, hidden_size] that the last norm made, by some rows of the head."""
        return capped(rows @ table.T, self.config.logits_softcap)


_ROW_MULTIPLE = 16
"""Tables are read from multiples of this on, which every format can."""


@torch.inference_mode()
def read_layer(layer: DecoderLayer, index: int, hidden: Tensor, state: LayerState) -> LayerReading:
    """Read a text with one layer.

    Args:
        layer: in the type of ``hidden``.
        index: of the layer.
        hidden: [1, time, hidden_size].
        state: blank.
    """
    config = layer.allmem.config
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            kept[name] = output if isinstance(output, Tensor) else output[0]

        return hook

    places = {"attended": layer.self_attn, "recalled": layer.allmem, "added": layer.mlp}
    made: dict[Place, str] = {
        "before_mixing": "normed", "behind_mixing": "mixed", "behind_mlp": "added",
    }  # fmt: skip
    for place, name in made.items():
        if (norm := layer.norm(place)) is not None:
            places[name] = norm
    hooks = [module.register_forward_hook(keep(name)) for name, module in places.items()]  # type: ignore[arg-type]
    try:
        cuts = pieces(0, hidden.shape[1], config.chunk)
        after, *present = layer(hidden, torch.tensor([0]), cuts, *state.tensors())
    finally:
        for hook in hooks:
            hook.remove()
    mixed = kept["mixed"] if "mixed" in kept else kept["attended"] + kept["recalled"]
    return LayerReading(
        index, hidden, kept.get("normed", hidden), mixed, kept["added"], after,
        LayerState(*present),
    )  # fmt: skip
