"""The step graph as it is traced: the model's weights packed into few, large matrix products.

One product makes the queries, keys and values of attention and memory; one brings both branches
back, with alpha folded in; residual sum and norm are one node of ONNX Runtime's. What PyTorch
computes with the unpacked model is the test of it (see validate.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from allmem_exporters.layers import WindowAttention
from allmem_exporters.layers_memory import Memory
from allmem_exporters.modeling import AllMemForCausalLM
from allmem_exporters.operators import sliding_window_attention, ttt_memory
from allmem_exporters.state import LayerState

ACTIVATIONS = {
    "gelu": functional.gelu,
    "gelu_pytorch_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
}


def _constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().float().contiguous(), requires_grad=False)


class Product(nn.Module):
    """x @ weight + bias, the weight stored as ONNX wants it: [inputs, outputs]."""

    def __init__(self, weights: list[Tensor], biases: list[Tensor | None]) -> None:
        super().__init__()
        packed = torch.cat([weight.detach() for weight in weights]).T
        self.weight = _constant(packed)
        self.bias = None
        if any(bias is not None for bias in biases):
            parts = [
                weight.new_zeros(weight.shape[0]) if bias is None else bias.detach()
                for weight, bias in zip(weights, biases, strict=True)
            ]
            self.bias = _constant(torch.cat(parts))

    @classmethod
    def of(cls, *linears: nn.Linear) -> Product:
        """Several linear layers of one input as one."""
        return cls([linear.weight for linear in linears], [linear.bias for linear in linears])

    def forward(self, x: Tensor) -> Tensor:
        """[…, inputs] to […, outputs]."""
        product = x @ self.weight
        return product if self.bias is None else product + self.bias


class SkipNorm(nn.Module):
    """Residual sum, then RMSNorm: (normed, sum)."""

    def __init__(self, norm: nn.Module, epsilon: float) -> None:
        super().__init__()
        self.weight = _constant(norm.weight)
        self.epsilon = epsilon

    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Both [1, time, hidden_size]."""
        normed, _, _, total = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::SkipSimplifiedLayerNormalization",
            (x, residual, self.weight),
            {"epsilon": self.epsilon},
            dtypes=[torch.float32] * 4,
            shapes=[x.shape, (*x.shape[:-1], 1), (*x.shape[:-1], 1), x.shape],
            version=1,
        )
        return normed, total


def _head_norms(attention: WindowAttention, head_dim: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Gains of the query and key norms; ones, which nothing reads, where there are no norms."""
    if attention.head_norms:
        return _constant(attention.q_norm.weight), _constant(attention.k_norm.weight)
    ones = _constant(torch.ones(head_dim))
    return ones, ones


def _control(memory: Memory) -> Product:
    """Logits of three learning rates a head, momentum and gate as one product."""
    copies = 3 * memory.heads // memory.rates
    weights = [memory.lr_proj.weight.repeat(copies, 1), memory.mom_proj.weight]
    biases = [memory.lr_proj.bias.repeat(copies), memory.mom_proj.bias]
    if memory.config.out_gate == "none":  # five logits all the same; nothing reads the last
        weights.append(torch.zeros_like(memory.mom_proj.weight))
        biases.append(torch.zeros_like(memory.mom_proj.bias))
    else:
        weights.append(memory.gate_proj.weight)
        biases.append(memory.gate_proj.bias)
    return Product(weights, biases)


class GraphLayer(nn.Module):
    """One decoder layer between two residual sums."""

    def __init__(self, model: AllMemForCausalLM, index: int) -> None:
        super().__init__()
        config, layer = model.config, model.model.layers[index]
        attention, memory = layer.self_attn, layer.allmem
        self.config = config
        self.attention_attributes = attention.attributes
        self.memory_attributes = memory.attributes
        self.project = Product.of(
            attention.q_proj, attention.k_proj, attention.v_proj,
            memory.q_proj, memory.k_proj, memory.v_proj,
        )  # fmt: skip
        self.widths = [
            (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim,
            3 * config.mem_width,
        ]
        self.inverse_frequencies = _constant(torch.tensor(model.model.frequencies))
        self.query_norm, self.key_norm = _head_norms(attention, config.head_dim)
        self.memory_constants = nn.ParameterList(_constant(t) for t in memory.constants())
        self.control = _control(memory)
        back = memory.alpha.detach()[:, None] * memory.o_proj.weight.detach()
        # One product brings both branches back: [output, attention width + memory width].
        self.back = Product(
            [torch.cat([attention.o_proj.weight.detach(), back], dim=1)], [attention.o_proj.bias]
        )
        self.after_mixing = SkipNorm(layer.post_attention_layernorm, config.rms_norm_eps)
        self.gate_up = Product.of(layer.mlp.gate_proj, layer.mlp.up_proj)
        self.down = Product.of(layer.mlp.down_proj)

    def forward(
        self, normed: Tensor, residual: Tensor, position: Tensor, state: LayerState
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """(what the layer adds, residual, new state) of a normed piece [1, time, hidden_size]."""
        attention_qkv, memory_qkv = self.project(normed).split(self.widths, dim=-1)
        attended, key, value = sliding_window_attention(
            attention_qkv, position, self.inverse_frequencies, self.query_norm, self.key_norm,
            state.key, state.value, **self.attention_attributes,
        )  # fmt: skip
        remembered, *learned = ttt_memory(
            memory_qkv, self.control(normed), position, *self.memory_constants,
            *state[2:], **self.memory_attributes,
        )  # fmt: skip
        mixed = self.back(torch.cat([attended, remembered], dim=-1))
        normed, residual = self.after_mixing(mixed, residual)
        gate, up = self.gate_up(normed).chunk(2, dim=-1)
        return self.down(self.activate(gate) * up), residual, [key, value, *learned]

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
    """(input_ids, position, logit_index, state) -> (logits, state…), to be traced, not run."""

    def __init__(self, model: AllMemForCausalLM) -> None:
        super().__init__()
        config = model.config
        self.epsilon, self.vocab_size = config.rms_norm_eps, config.vocab_size
        self.embedding = _constant(model.model.embed_tokens.weight)
        tied = model.lm_head.weight is model.model.embed_tokens.weight
        self.head = None if tied else _constant(model.lm_head.weight)
        layers = model.model.layers
        self.first_norm = _constant(layers[0].input_layernorm.weight)
        self.layers = nn.ModuleList(GraphLayer(model, index) for index in range(len(layers)))
        following = [layer.input_layernorm for layer in layers[1:]] + [model.model.norm]
        self.norms = nn.ModuleList(SkipNorm(norm, self.epsilon) for norm in following)

    def forward(
        self, input_ids: Tensor, position: Tensor, logit_index: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """Logits [1, rows, vocab_size] of the tokens named by logit_index, then the new state."""
        residual = functional.embedding(input_ids, self.embedding)
        normed = functional.rms_norm(residual, (residual.shape[-1],), self.first_norm, self.epsilon)
        size = len(LayerState._fields)
        present: list[Tensor] = []
        for index, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            past = LayerState(*state[index * size : (index + 1) * size])
            added, residual, new = layer(normed, residual, position, past)
            normed, residual = norm(added, residual)
            present += new
        rows = normed[0].index_select(0, logit_index)
        # Gemm reads the (tied) embedding as it lies; a product would keep a transposed copy.
        logits = torch.onnx.ops.symbolic(
            "Gemm",
            (rows, self.embedding if self.head is None else self.head),
            {"transB": 1},
            dtype=torch.float32,
            shape=(rows.shape[0], self.vocab_size),
            version=13,
        )
        return (logits[None], *present)
