"""AllMemForCausalLM: a pretrained decoder whose attention is a window, with a memory beside it.

State goes in and comes out; the model keeps nothing between calls. It reads without padding: all
rows of a batch stand at the same position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.generic import ModelOutput

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.decoder import Decoder
from allmem_exporters.model.initialize import initialize_memory
from allmem_exporters.model.layers import capped
from allmem_exporters.model.memory_layer import Memory
from allmem_exporters.model.state import AllMemState


@dataclass
class AllMemOutput(ModelOutput):
    """What a call returns.

    Attributes:
        loss: mean next-token loss, if labels were given.
        logits: [batch, rows, vocab_size], of all tokens or of those in ``logit_index``.
        state: to hand to the next call.
        position: to hand to the next call, the number of tokens read so far.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: AllMemState | None = None
    position: int | None = None


def pieces(position: int, length: int, chunk: int) -> list[tuple[int, int]]:
    """Cut ``length`` tokens that start at ``position`` at the multiples of ``chunk``.

    Returns:
        (first, last + 1) of each piece, counted from the first of these tokens.
    """
    first_boundary = chunk - position % chunk
    edges = [0, *range(first_boundary, length, chunk), length]
    return list(zip(edges, edges[1:], strict=False)) if length else []


class AllMemForCausalLM(PreTrainedModel):
    """A language model that reads without end in a state of fixed size.

    Source: arXiv 2602.13680.
    """

    config: AllMemConfig
    model: Decoder
    lm_head: nn.Linear
    config_class = AllMemConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["DecoderLayer"]
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: AllMemConfig) -> None:
        config.check()  # once more: from_pretrained sets options given to it after the first time
        super().__init__(config)
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Memory):
            if not any(getattr(p, "_is_hf_initialized", False) for p in module.parameters()):
                initialize_memory(module)
        else:
            super()._init_weights(module)

    def forward(
        self,
        input_ids: Tensor,
        state: AllMemState | None = None,
        position: int = 0,
        labels: Tensor | None = None,
        logit_index: Tensor | Sequence[int] | None = None,
        attention_mask: Tensor | None = None,
    ) -> AllMemOutput:
        """Read any number of tokens.

        Args:
            input_ids: [batch, time] int64.
            state: what the previous call returned, or None at the start of a text.
            position: tokens read before; the previous call's ``position``.
            labels: [batch, time], the tokens themselves; -100 leaves one out. The loss compares
                the logits of each token with the label of the next one of this call.
            logit_index: which tokens of the input want logits; None for all.
            attention_mask: accepted only if it masks nothing.

        Raises:
            ValueError: the arguments contradict each other; the text says which.
        """
        if input_ids.dim() != 2 or input_ids.shape[1] == 0:
            raise ValueError(
                f"input_ids has the shape {tuple(input_ids.shape)}; it must be [batch, time] with "
                "at least one token."
            )
        if attention_mask is not None and not bool((attention_mask != 0).all()):
            raise ValueError(
                "attention_mask masks tokens out, but this model reads without padding: give it "
                "rows of equal length, or one row at a time."
            )
        if position < 0 or (state is None and position > 0):
            raise ValueError(
                f"position is {position} without a state; a text starts at position 0, and later "
                "calls take state and position from the output of the one before."
            )
        if labels is not None and logit_index is not None:
            raise ValueError("labels need the logits of all tokens; leave logit_index out.")
        batch, time = input_ids.shape
        if state is None:
            state = AllMemState.blank(self.config, batch, self.dtype, input_ids.device)
        hidden, after = self.model(
            input_ids,
            torch.tensor([position], device=input_ids.device),
            state,
            pieces(position, time, self.config.chunk),
        )
        if logit_index is not None:
            index = torch.as_tensor(logit_index, dtype=torch.int64, device=hidden.device)
            hidden = hidden.index_select(1, index)
        logits = capped(self.lm_head(hidden), self.config.logits_softcap)
        loss = None
        if labels is not None:
            rows = logits[:, :-1].flatten(0, 1)
            wide = rows if rows.dtype == torch.float64 else rows.float()
            loss = functional.cross_entropy(wide, labels[:, 1:].flatten(), ignore_index=-100)
        return AllMemOutput(loss=loss, logits=logits, state=after, position=position + time)


AutoModelForCausalLM.register(AllMemConfig, AllMemForCausalLM)
