"""The step graph as it is traced: the model's weights packed into few, large matrix products.

What is packed into one product, `model/packing.py` says; residual sum and norm are one node of ONNX
Runtime's. What PyTorch computes with the unpacked model is the test of it (see `validate`).

With float16 activations everything between the tokens and the logits is float16, except what the
operators take in float32: state, gains, taps, initial weights. See docs/float16.md.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.decoder import DecoderLayer
from allmem_exporters.model.layers import WindowAttention, capped
from allmem_exporters.model.memory_layer import Memory
from allmem_exporters.model.norms import Norm, scaled
from allmem_exporters.model.operators import attention_operator, ttt_memory
from allmem_exporters.model.packing import packed_layer
from allmem_exporters.model.state import LayerState, layer_size

ACTIVATIONS = {
    "gelu": functional.gelu,
    "gelu_pytorch_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
}


DTYPES = {"float32": torch.float32, "float16": torch.float16}

RESIDUAL_SCALE = 2.0**-4
"""Of the float16 residual stream, which float16 could not hold as it is in every model.

Single channels of SmolLM2-135M reach 24,553 of the 65,504 there are, and one feed-forward branch
brings nearly all of that at once. A norm does not see the scale if its epsilon is scaled too, and a
power of two rounds nothing, so all that changes is where float16 ends: at a million.
"""

_WIDTH = 8
"""Float16 products whose width is no multiple of this miss the matrix units of GPUs."""


def constant(tensor: Tensor, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    """A tensor as a parameter that is not trained."""
    return nn.Parameter(tensor.detach().to(dtype).contiguous(), requires_grad=False)


def _joined(biases: list[Tensor | None], widths: list[int]) -> Tensor | None:
    """Biases one after the other, zeros where there is none; None if there is none at all."""
    known = next((bias for bias in biases if bias is not None), None)
    if known is None:
        return None
    return torch.cat(
        [
            known.new_zeros(width) if bias is None else bias.detach()
            for bias, width in zip(biases, widths, strict=True)
        ]
    )


class Product(nn.Module):
    """x @ weight + bias, the weight stored as ONNX wants it: [inputs, outputs]."""

    def __init__(
        self, weights: list[Tensor], biases: list[Tensor | None], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.weight = constant(torch.cat([weight.detach() for weight in weights]).T, dtype)
        bias = _joined(biases, [len(weight) for weight in weights])
        self.bias = None if bias is None else constant(bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[…, inputs] to […, outputs]."""
        product = x @ self.weight
        return product if self.bias is None else product + self.bias


def _scaled(tensor: Tensor | None, scale: float) -> Tensor | None:
    return None if tensor is None else tensor.detach() * scale


class SkipNorm(nn.Module):
    """Residual sum, then a norm: (normed, sum). Without a norm only the sum is of use.

    ONNX Runtime sums the squares in float32, whatever the inputs are.

    Args:
        norm: None where the sum is read as it is.
        config: of the model.
        scale: of the residual stream.
        dtype: of the stream.
    """

    def __init__(
        self, norm: Norm | None, config: AllMemConfig, scale: float, dtype: torch.dtype
    ) -> None:
        super().__init__()
        gain = torch.ones(config.hidden_size) if norm is None else norm.gain
        self.weight = constant(gain, dtype)
        self.epsilon = config.rms_norm_eps * scale**2
        kind = "" if config.family.centered else "Simplified"
        self.operator = f"com.microsoft::Skip{kind}LayerNormalization"

    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Both [1, time, hidden_size]."""
        normed, _, _, total = torch.onnx.ops.symbolic_multi_out(
            self.operator,
            (x, residual, self.weight),
            {"epsilon": self.epsilon},
            dtypes=[x.dtype, torch.float32, torch.float32, x.dtype],
            shapes=[x.shape, (*x.shape[:-1], 1), (*x.shape[:-1], 1), x.shape],
            version=1,
        )
        return normed, total


class PlainNorm(nn.Module):
    """RMSNorm of what is no residual sum, as one node.

    Args:
        norm: gain and epsilon.
        scale: of what it makes; what it is given has any scale if ``of_input`` says so.
        dtype: of the stream.
        of_input: scale of what it is given.
    """

    def __init__(self, norm: Norm, scale: float, dtype: torch.dtype, of_input: float = 1.0) -> None:
        super().__init__()
        self.weight = constant(scaled(norm.gain, scale), dtype)
        self.epsilon = norm.epsilon * of_input**2

    def forward(self, x: Tensor) -> Tensor:
        """[…, size]."""
        return torch.onnx.ops.symbolic(
            "SimplifiedLayerNormalization",
            (x, self.weight),
            {"axis": -1, "epsilon": self.epsilon},
            dtype=x.dtype,
            shape=x.shape,
            version=1,
        )


def residual_scale(dtype: torch.dtype) -> float:
    """The factor on the residual stream: 1 where its type has room enough."""
    return RESIDUAL_SCALE if dtype == torch.float16 else 1.0


def control_of(memory: Memory) -> tuple[list[Tensor], list[Tensor | None]]:
    """Weights and biases of the logits: three learning rates a head, momentum and gate."""
    copies = 3 * memory.heads // memory.rates
    weights: list[Tensor] = [memory.lr_proj.weight.repeat(copies, 1), memory.mom_proj.weight]
    biases: list[Tensor | None] = [memory.lr_proj.bias.repeat(copies), memory.mom_proj.bias]
    if memory.config.out_gate == "none":  # five logits all the same; nothing reads the last
        weights.append(torch.zeros_like(memory.mom_proj.weight))
        biases.append(torch.zeros_like(memory.mom_proj.bias))
    else:
        weights.append(memory.gate_proj.weight)
        biases.append(memory.gate_proj.bias)
    return weights, biases


def _widths(attention: WindowAttention, config: AllMemConfig) -> list[int]:
    """Of the parts of a layer's first product: for attention, and for the memory."""
    queries, keys = (p.out_features for p in (attention.q_proj, attention.k_proj))
    parts = [queries, keys, keys] if attention.whole_norms else [queries + 2 * keys]
    return [*parts, 3 * config.mem_width]


def _head_norms(attention: WindowAttention) -> tuple[nn.Parameter, nn.Parameter]:
    """Gains of the query and key norms; equal ones, which nothing reads, where there are none."""
    query, key = attention.gains()
    if attention.head_norms:
        return constant(query), constant(key)
    ones = constant(torch.ones(attention.head_dim))
    return ones, ones


def _behind(norm: Norm | None, scale: float, dtype: torch.dtype) -> nn.Module:
    """The norm of what a branch adds, which has the stream's scale before and after."""
    return nn.Identity() if norm is None else PlainNorm(norm, scale, dtype, of_input=scale)


class GraphLayer(nn.Module):
    """One decoder layer between two residual sums."""

    def __init__(self, config: AllMemConfig, layer: DecoderLayer, dtype: torch.dtype) -> None:
        super().__init__()
        attention, memory = layer.self_attn, layer.allmem
        self.config = config
        self.attention_attributes = attention.attributes
        self.memory_attributes = memory.attributes
        self.parallel, self.reads_stream = layer.parallel, layer.norm("before_mixing") is None
        scale = residual_scale(dtype)
        packed = packed_layer(layer)
        # What reads the stream as it is takes its scale back.
        read = 1.0 / scale if self.reads_stream else 1.0
        weights = [scaled(weight, read) for weight in packed["project"].weights()]
        biases = packed["project"].biases()
        self.widths = _widths(attention, config)
        self.whole_norms = attention.whole_norms
        if self.whole_norms:
            self.query_whole_norm = PlainNorm(attention.q_norm, 1.0, dtype)
            self.key_whole_norm = PlainNorm(attention.k_norm, 1.0, dtype)
        self.control = None
        control, of_control = control_of(memory)
        control = [scaled(weight, read) for weight in control]
        if dtype == torch.float32:
            # On its own, so that it stays float32 where other weights are stored as float16.
            self.control = Product(control, of_control, dtype)
        else:
            # A product of some forty columns costs a GPU as much as one of thousands.
            weights, biases = weights + control, biases + of_control
            self.widths.append(5 * config.mem_heads)
            if padding := -sum(self.widths) % _WIDTH:
                self.widths.append(padding)
                weights.append(memory.mom_proj.weight.new_zeros(padding, config.hidden_size))
                biases.append(None)
        self.project = Product(weights, biases, dtype)
        self.inverse_frequencies = constant(attention.rotary(torch.device("cpu")))
        self.query_norm, self.key_norm = _head_norms(attention)
        self.memory_constants = nn.ParameterList(constant(t) for t in memory.constants())
        self.back = Product(
            [scale * packed["back"].whole()],
            [_scaled(attention.o_proj.bias, scale * attention.o_proj.scale)],
            dtype,
        )
        self.behind_mixing = _behind(layer.norm("behind_mixing"), scale, dtype)
        self.after_mixing = SkipNorm(layer.norm("before_mlp"), config, scale, dtype)
        # Scaled before the gate's product, not after it: that product is large, too.
        (gate, up), (gate_bias, up_bias) = packed["gate_up"].weights(), packed["gate_up"].biases()
        gate, up = scaled(gate, read), scaled(up, read)
        self.gate_up = Product([gate, scale * up], [gate_bias, _scaled(up_bias, scale)], dtype)
        (down,), (down_bias,) = packed["down"].weights(), packed["down"].biases()
        self.down = Product([down], [_scaled(down_bias, scale * layer.mlp.down_proj.scale)], dtype)
        self.behind_mlp = _behind(layer.norm("behind_mlp"), scale, dtype)

    def forward(
        self, normed: Tensor, residual: Tensor, position: Tensor, state: LayerState
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """(what the layer adds, residual, new state) of a normed piece [1, time, hidden_size]."""
        read = residual if self.reads_stream else normed
        parts = self.project(read).split(self.widths, dim=-1)
        if self.whole_norms:
            query, key, value, *parts = parts
            query, key = self.query_whole_norm(query), self.key_whole_norm(key)
            parts = [torch.cat([query, key, value], dim=-1), *parts]
        attention_qkv, memory_qkv, *rest = parts
        control = rest[0] if self.control is None else self.control(read)
        attend = attention_operator(self.attention_attributes, state.rings)
        attended, key, value, *scale = attend(
            attention_qkv, position, self.inverse_frequencies, self.query_norm, self.key_norm,
            *state.rings, **self.attention_attributes,
        )  # fmt: skip
        remembered, *learned = ttt_memory(
            memory_qkv, control, position, *self.memory_constants,
            *state.memory, **self.memory_attributes,
        )  # fmt: skip
        mixed = self.behind_mixing(self.back(torch.cat([attended, remembered], dim=-1)))
        middle, residual = self.after_mixing(mixed, residual)
        read = normed if self.parallel else residual if self.reads_stream else middle
        gate, up = self.gate_up(read).chunk(2, dim=-1)
        added = self.behind_mlp(self.down(self.activate(gate) * up))
        return added, residual, [key, value, *learned, *scale]

    def activate(self, gate: Tensor) -> Tensor:
        """The channel mixer's activation; SiLU is one node."""
        if self.config.hidden_act != "silu":
            return ACTIVATIONS[self.config.hidden_act](gate)
        return torch.onnx.ops.symbolic(
            "com.microsoft::QuickGelu",
            (gate,),
            {"alpha": 1.0},
            dtype=gate.dtype,
            shape=gate.shape,
            version=1,
        )


class StepGraph(nn.Module):
    """(input_ids, position, logit_index, state) -> (logits, state…), to be traced, not run.

    Args:
        config: of the model.
        layers: of the decoder. Where parameters have no values, on the device ``meta``, the
            matrices made of them have none either.
        last_norm: the norm before the head.
        activations: type of the token stream.
    """

    def __init__(
        self,
        config: AllMemConfig,
        layers: Iterable[DecoderLayer],
        last_norm: Norm,
        activations: str = "float32",
    ) -> None:
        super().__init__()
        dtype = DTYPES[activations]
        scale = residual_scale(dtype)
        self.embedding_scale = scale * config.embedding_scale
        self.vocab_size = config.vocab_size
        table = torch.empty(config.vocab_size, config.hidden_size, dtype=dtype, device="meta")
        self.embedding = constant(table, dtype)
        self.head = None if config.tie_word_embeddings else constant(table, dtype)
        self.softcap = config.logits_softcap
        graph_layers: list[GraphLayer] = []
        norms: list[Norm | None] = []
        for layer in layers:
            graph_layers.append(GraphLayer(config, layer, dtype))
            norms.append(layer.norm("before_mixing"))
        # Takes the embedding twice; the norm of 2 x is that of x if epsilon is four times as large.
        self.first_norm = SkipNorm(norms[0], config, 2 * scale, dtype) if norms[0] else None
        self.layers = nn.ModuleList(graph_layers)
        behind = [*norms[1:], last_norm]
        self.norms = nn.ModuleList(SkipNorm(norm, config, scale, dtype) for norm in behind)

    def forward(
        self, input_ids: Tensor, position: Tensor, logit_index: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """Logits [1, rows, vocab_size] of the tokens named by logit_index, then the new state."""
        residual = functional.embedding(input_ids, self.embedding)
        residual = scaled(residual, self.embedding_scale)
        normed = residual if self.first_norm is None else self.first_norm(residual, residual)[0]
        size = layer_size(state)
        present: list[Tensor] = []
        for index, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            past = LayerState(*state[index * size : (index + 1) * size])
            added, residual, new = layer(normed, residual, position, past)
            normed, residual = norm(added, residual)
            present += new
        rows = normed.index_select(1, logit_index).squeeze(0)
        # Gemm reads the (tied) embedding as it lies; a product would keep a transposed copy.
        logits = torch.onnx.ops.symbolic(
            "Gemm",
            (rows, self.embedding if self.head is None else self.head),
            {"transB": 1},
            dtype=rows.dtype,
            shape=(rows.shape[0], self.vocab_size),
            version=13,
        )
        # In this order the cast writes the output; the other way round, the logits would be copied.
        return (capped(logits[None].float(), self.softcap), *present)
