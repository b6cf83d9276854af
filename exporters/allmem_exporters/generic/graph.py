"""A decoder on the generic path as it is traced: products with weights as ONNX wants them.

Large matrices are there by their shapes alone; all that is small has its values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from allmem_exporters.generic.config import GenericConfig
from allmem_exporters.generic.decoder import BRANCH, GenericDecoder, model_without_values
from allmem_exporters.generic.matrices import memory_products, product_of
from allmem_exporters.generic.names import buffers_without_values, tables_of
from allmem_exporters.model.layers import Cuts
from allmem_exporters.model.memory_layer import Memory
from allmem_exporters.model.operators import ttt_memory
from allmem_exporters.model.weights import ModelWeights
from allmem_exporters.onnx.step_module import Product, constant, control_of
from allmem_exporters.quantization.blocks import Matrix

EMBEDDING, HEAD = "embedding", "head"
"""Names of the tables in the graph; the runtime finds the first by it."""
TABLES = {EMBEDDING: EMBEDDING, HEAD: HEAD}


class GenericGraph(nn.Module):
    """(input_ids, position, logit_index, state) -> (logits, state…), to be traced, not run.

    Args:
        weights: of the model, whose configuration is a ``GenericConfig``.

    Attributes:
        matrices: the large ones by the names of this module's parameters.
    """

    def __init__(self, weights: ModelWeights) -> None:
        super().__init__()
        config = weights.config
        assert isinstance(config, GenericConfig)
        model = model_without_values(config)
        tables = tables_of(model)
        self.matrices: dict[str, Matrix] = {}
        self._fill(model, weights)
        self._put_products(model, weights)
        embedding = f"{tables.embedding}.weight"
        self.matrices[embedding] = product_of(
            weights, embedding, (config.vocab_size, config.hidden_size)
        )
        head = model.get_output_embeddings()
        if tables.tied:
            head.weight = model.get_input_embeddings().weight
        else:
            name = f"{tables.head}.weight"
            self.matrices[name] = product_of(weights, name, tuple(head.weight.shape))
        model.set_submodule(tables.head, _Head(head))
        for site in config.probed.sites:
            attention = model.get_submodule(site.path)
            memory = attention.get_submodule(BRANCH)
            assert isinstance(memory, Memory)
            attention.add_module(BRANCH, _GraphMemory(memory))
            self.matrices |= memory_products(weights, site.path)
        own = EMBEDDING if tables.tied else HEAD
        self.tables = {embedding: EMBEDDING, f"{tables.head}.weight": own}
        self.decoder = GenericDecoder(model, config)
        self._number(model)

    def forward(
        self, input_ids: Tensor, position: Tensor, logit_index: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """Logits [1, rows, vocab_size] of the tokens named by logit_index, then the new state."""
        found: tuple[Tensor, ...] = self.decoder(input_ids, position, logit_index, state)
        return found

    def _fill(self, model: PreTrainedModel, weights: ModelWeights) -> None:
        """Give all that is small its values; the matrices of products and tables stay empty."""
        for path, module in model.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                large = f".{BRANCH}." not in path or path.endswith(
                    tuple(f".{BRANCH}.{one}_proj" for one in "qkvo")
                )
            else:
                large = False
            for leaf in [leaf for leaf, p in module._parameters.items() if p is not None]:
                if not (large and leaf == "weight"):
                    values = weights.tensor(f"{path}.{leaf}").float().clone()
                    module._parameters[leaf] = nn.Parameter(values, requires_grad=False)
        for name in buffers_without_values(model):
            owner, _, leaf = name.rpartition(".")
            model.get_submodule(owner)._buffers[leaf] = weights.tensor(name).float()

    def _put_products(self, model: PreTrainedModel, weights: ModelWeights) -> None:
        head = model.get_output_embeddings()
        for path, module in list(model.named_modules()):
            if isinstance(module, nn.Linear) and f".{BRANCH}." not in path and module is not head:
                name = f"{path}.weight"
                self.matrices[name] = product_of(weights, name, tuple(module.weight.shape))
                product = Product([module.weight], [module.bias], torch.float32)
                model.set_submodule(path, product)

    def _number(self, model: PreTrainedModel) -> None:
        """Fill each matrix with a number of its own, which takes no memory however large it is."""
        known: dict[int, nn.Parameter] = {}
        for name, parameter in list(model.named_parameters(remove_duplicate=False)):
            if parameter.device.type != "meta":
                continue
            if id(parameter) not in known:
                value = torch.full((), 1.0 + len(known)).expand(parameter.shape)
                known[id(parameter)] = nn.Parameter(value, requires_grad=False)
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, known[id(parameter)])


class _Head(nn.Module):
    """The product that makes logits, which reads a (tied) embedding as it lies."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        assert isinstance(head, nn.Linear)
        self.weight, self.bias = head.weight, head.bias

    def forward(self, x: Tensor) -> Tensor:
        """[1, rows, hidden_size] to [1, rows, vocab_size]."""
        rows = x.squeeze(0)
        logits = torch.onnx.ops.symbolic(
            "Gemm",
            (rows, self.weight),
            {"transB": 1},
            dtype=rows.dtype,
            shape=(rows.shape[0], self.weight.shape[0]),
            version=13,
        )[None]
        return logits if self.bias is None else logits + self.bias


class _GraphMemory(nn.Module):
    """A memory as three products around its operator; alpha is part of the last."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        parts = [memory.q_proj.weight, memory.k_proj.weight, memory.v_proj.weight]
        self.project = Product(list(parts), [None] * 3, torch.float32)
        self.control = Product(*control_of(memory), torch.float32)
        self.back = Product([memory.o_proj.weight], [None], torch.float32)
        self.constants = nn.ParameterList(constant(one) for one in memory.constants())
        self.attributes = memory.attributes

    def forward(
        self, x: Tensor, position: Tensor, state: tuple[Tensor, ...], cuts: Cuts
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See ``Memory``; x is one piece."""
        read, *after = ttt_memory(
            self.project(x), self.control(x), position, *self.constants, *state, **self.attributes
        )
        return self.back(read), tuple(after)
