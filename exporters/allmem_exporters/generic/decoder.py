"""transformers' own model of a decoder, with our attention and memories in it, a piece at a time.

Its rotary embeddings give out no rotation: the operator rotates, so positions may grow without end.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.interface import NAME, PLACE
from allmem_exporters.generic.probe import Site
from allmem_exporters.model.memory_layer import Memory
from allmem_exporters.model.operators import attention_operator
from allmem_exporters.model.state import LayerState, layer_size
from allmem_exporters.pretrained_model import empty_model

BRANCH = "allmem"
"""Name of a memory within its attention."""


def model_without_values(config: GenericConfig) -> PreTrainedModel:
    """Transformers' model with a memory in each attention, on the device ``meta``.

    The names of its parameters are those of checkpoints.
    """
    model = empty_model(config.pretrained, NAME)
    for site in config.probed.sites:
        with torch.device("meta"):
            memory = Memory(config)
        model.get_submodule(site.path).add_module(BRANCH, memory)
    return model


class _Still(nn.Module):
    """Cosines and sines of no rotation."""

    cos: Tensor
    sin: Tensor

    def __init__(self, rotary: nn.Module, width: int) -> None:
        super().__init__()
        self.config = getattr(rotary, "config", None)  # models ask it for its base
        self.register_buffer("cos", torch.ones(1, 1, width), persistent=False)
        self.register_buffer("sin", torch.zeros(1, 1, width), persistent=False)

    def forward(self, *arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """Both [1, 1, columns]."""
        return self.cos, self.sin


class _Step:
    """What all layers share while one piece is read."""

    position: Tensor
    logit_index: Tensor
    past: list[LayerState]
    rings: list[tuple[Tensor, ...]]
    memories: list[tuple[Tensor, ...]]


class GenericDecoder(nn.Module):
    """Reads pieces of a text, none of which crosses a boundary of chunks.

    Args:
        model: of transformers, whose attentions call ours; is changed. Where its attentions have
            no memories, there are none.
        config: of the whole.
    """

    def __init__(self, model: PreTrainedModel, config: GenericConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        self._step = _Step()
        model.get_output_embeddings().register_forward_pre_hook(self._select)
        for path, width in config.probed.angles.items():
            model.set_submodule(path, _Still(model.get_submodule(path), width))
        sites = config.probed.sites
        half = max(len(site.rope.frequencies) for site in sites)
        self.register_buffer("ones", torch.ones(config.head_dim), persistent=False)
        for index, site in enumerate(sites):
            frequencies = torch.tensor(site.rope.frequencies)
            if not frequencies.any():  # as many as in other layers, for which one body serves
                frequencies = torch.zeros(half)
            self.register_buffer(f"frequencies_{index}", frequencies, persistent=False)
            if site.rope.order is not None:
                order = torch.tensor(site.rope.order)
                self.register_buffer(f"order_{index}", order, persistent=False)
            module = model.get_submodule(site.path)
            setattr(module, PLACE, partial(self._attend, index))
            if hasattr(module, BRANCH):
                module.register_forward_hook(partial(self._recall, index), with_kwargs=True)

    def forward(
        self, input_ids: Tensor, position: Tensor, logit_index: Tensor, state: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Read a piece [1, time].

        Args:
            input_ids: [1, time] int64.
            position: [1] int64, of the first token.
            logit_index: [rows] int64, tokens of the piece that want logits.
            state: of all layers, in the order of the specification.

        Returns:
            Logits [1, rows, vocab_size], then the state after the piece.
        """
        size, step = layer_size(state), self._step
        step.position, step.logit_index = position, logit_index
        layers = range(self.config.num_hidden_layers)
        step.past = [LayerState(*state[at * size : (at + 1) * size]) for at in layers]
        step.rings = [layer.rings for layer in step.past]
        step.memories = [layer.memory for layer in step.past]
        positions = (position + torch.arange(input_ids.shape[1]))[None]
        logits: Tensor = self.model(
            input_ids=input_ids, position_ids=positions, use_cache=False
        ).logits
        after: list[Tensor] = []
        for rings, memory in zip(step.rings, step.memories, strict=True):
            after += [*rings[:2], *memory, *rings[2:]]
        return logits, *after

    def attributes(self, index: int) -> dict[str, Any]:
        """Of a layer's operator SlidingWindowAttention."""
        site = self.config.probed.sites[index]
        attributes = self.config.attention_attributes(index, site.rope.amplitude)
        return {**attributes, "scale": site.scale, "norm_epsilon": 0.0}

    def _select(self, head: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The head sees those tokens only that want logits."""
        return given[0].index_select(1, self._step.logit_index), *given[1:]

    def _attend(
        self,
        index: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None,
        sink_logits: Tensor | None,
    ) -> Tensor:
        site: Site = self.config.probed.sites[index]
        if site.rope.order is not None:
            order = self.get_buffer(f"order_{index}")
            query, key = query.index_select(-1, order), key.index_select(-1, order)
        if site.value_dim < site.head_dim:
            value = functional.pad(value, (0, site.head_dim - site.value_dim))
        flat = [part.transpose(1, 2).flatten(2) for part in (query, key, value)]
        attributes, past = self.attributes(index), self._step.past[index].rings
        ones = self.get_buffer("ones")
        output, *rings = attention_operator(attributes, past)(
            torch.cat(flat, dim=-1), self._step.position, self.get_buffer(f"frequencies_{index}"),
            ones, ones, *past, sink_logits, **attributes,
        )  # fmt: skip
        self._step.rings[index] = tuple(rings)
        heads = output.unflatten(-1, (site.query_heads, site.head_dim))
        mixed: Tensor = heads[..., : site.value_dim]
        return heads if site.value_dim == site.head_dim else mixed

    def _recall(
        self,
        index: int,
        module: nn.Module,
        given: tuple[Tensor, ...],
        named: dict[str, Tensor],
        output: Tensor | tuple[Any, ...],
    ) -> Tensor | tuple[Any, ...]:
        """Add what the memory reads to what the attention gives."""
        x = given[0] if given else named["hidden_states"]
        memory, step = module.get_submodule(BRANCH), self._step
        read, after = memory(x, step.position, step.past[index].memory, [(0, x.shape[1])])
        step.memories[index] = after
        return output + read if isinstance(output, Tensor) else (output[0] + read, *output[1:])
