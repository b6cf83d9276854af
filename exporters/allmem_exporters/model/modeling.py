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
from transformers.utils import ModelOutput

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.initialize import initialize_memory
from allmem_exporters.model.layers import MLP, Cuts, RMSNorm, WindowAttention
from allmem_exporters.model.memory_layer import Memory
from allmem_exporters.model.rope import rotary_frequencies
from allmem_exporters.model.state import AllMemState, LayerState


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


class DecoderLayer(nn.Module):
    """One layer: window attention and memory side by side, then the feed-forward network."""

    def __init__(self, config: AllMemConfig, rope_amplitude: float) -> None:
        super().__init__()
        self.self_attn = WindowAttention(config, rope_amplitude)
        self.allmem = Memory(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, hidden: Tensor, position: Tensor, frequencies: Tensor, cuts: Cuts, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """From hidden [batch, time, hidden_size] and the layer's state to those after it."""
        x, state = self.input_layernorm(hidden), LayerState(*tensors)
        attended, rings = self.self_attn(x, position, frequencies, state.rings, cuts)
        recalled, memory = self.allmem(x, position, state.memory, cuts)
        hidden = hidden + attended + recalled
        hidden = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return hidden, *rings[:2], *memory, *rings[2:]


class Decoder(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, config: AllMemConfig) -> None:
        super().__init__()
        self.frequencies, amplitude = rotary_frequencies(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, amplitude) for _ in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.gradient_checkpointing = False

    def forward(
        self, input_ids: Tensor, position: Tensor, state: AllMemState, cuts: Cuts
    ) -> tuple[Tensor, AllMemState]:
        """Tokens [batch, time] to normed hidden states, layer by layer over all pieces."""
        hidden = self.embed_tokens(input_ids)
        frequencies = torch.tensor(self.frequencies, dtype=torch.float32, device=hidden.device)
        after = []
        for layer, past in zip(self.layers, state.layers, strict=True):
            inputs = (hidden, position, frequencies, cuts, *past.tensors())
            if self.gradient_checkpointing and self.training:
                hidden, *present = self._gradient_checkpointing_func(layer.__call__, *inputs)
            else:
                hidden, *present = layer(*inputs)
            after.append(LayerState(*present))
        return self.norm(hidden), AllMemState(tuple(after))


class AllMemForCausalLM(PreTrainedModel):
    """A language model that reads without end in a state of fixed size.

    Source: arXiv 2602.13680.
    """

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
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            rows = logits[:, :-1].flatten(0, 1)
            wide = rows if rows.dtype == torch.float64 else rows.float()
            loss = functional.cross_entropy(wide, labels[:, 1:].flatten(), ignore_index=-100)
        return AllMemOutput(loss=loss, logits=logits, state=after, position=position + time)

    def step(
        self, input_ids: Tensor, position: Tensor, logit_index: Tensor, state: AllMemState
    ) -> tuple[Tensor, AllMemState]:
        """Read one piece, without looking at any value: what the ONNX graph computes.

        Args:
            input_ids: [batch, time], not crossing a multiple of ``config.chunk``.
            position: [1] int64, absolute index of the first token.
            logit_index: [rows] int64, which tokens want logits; may be empty.
            state: before the piece.

        Returns:
            Logits [batch, rows, vocab_size] and the state after the piece.
        """
        hidden, after = self.model(input_ids, position, state, None)
        return self.lm_head(hidden.index_select(1, logit_index)), after

    @torch.no_grad()
    def greedy(
        self,
        input_ids: Tensor,
        max_new_tokens: int,
        end_tokens: Sequence[int] = (),
        state: AllMemState | None = None,
        position: int = 0,
    ) -> list[int]:
        """Read ``input_ids`` [1, time] and continue with the likeliest token each time."""
        output = self(input_ids, state, position, logit_index=[input_ids.shape[1] - 1])
        made: list[int] = []
        while len(made) < max_new_tokens:
            token = int(output.logits[0, -1].argmax())
            if token in end_tokens:
                break
            made.append(token)
            following = torch.tensor([[token]], device=input_ids.device)
            output = self(following, output.state, output.position, logit_index=[0])
        return made


AutoModelForCausalLM.register(AllMemConfig, AllMemForCausalLM)
