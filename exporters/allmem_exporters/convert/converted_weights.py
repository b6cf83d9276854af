"""The weights of a converted model, made of its source one at a time: there is no checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from allmem_exporters.errors import ConversionError
from allmem_exporters.model.adapter import Adapter
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.initialize import can_warm_start, initialize_memory, warm_start
from allmem_exporters.model.memory_layer import MEMORY, Memory
from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_exporters.model.weights import EMBEDDING, HEAD, Table, decoder_digest, empty_layer
from allmem_exporters.sources import Source
from allmem_exporters.sources.fitting import check_fit, exact_type, finite_as
from allmem_exporters.tensor_reader import Entry


def check_entries(config: AllMemConfig, entries: Mapping[str, Entry], origin: str) -> list[str]:
    """Hold the weights of a source against what its decoder needs.

    Args:
        config: of the result.
        entries: types and shapes of the weights by transformers' names.
        origin: name for error messages.

    Returns:
        The names of those that are used.

    Raises:
        ConversionError: a weight is missing, left over, misshapen or not a plain number type.
    """
    with torch.device("meta"):
        model = AllMemForCausalLM(config)
    parameters = model.named_parameters(remove_duplicate=False)
    wanted = {name: tuple(p.shape) for name, p in parameters if MEMORY not in name}
    # Old checkpoints keep frequencies, which follow from the sizes.
    used = [name for name in entries if not name.endswith("rotary_emb.inv_freq")]
    check_fit(
        {name: entries[name] for name in used},
        wanted,
        backbone=config.backbone,
        origin=origin,
        may_lack=[HEAD] if config.tie_word_embeddings else [],
    )
    return used


def refuse_other_head(origin: str) -> ConversionError:
    """The error of a head that differs from the embedding it should be."""
    return ConversionError(
        f"{origin}: {HEAD} differs from {EMBEDDING} although tie_word_embeddings is true.",
        "Set tie_word_embeddings to false in config.json if the model has both.",
    )


class ConvertedWeights:
    """A source's decoder with a memory in each layer.

    Args:
        config: of the result; its dtype is set.
        source: of the decoder.
        dtype: of the result; None for the narrowest type that holds all the weights exactly.
        seed: of fresh memories.
        adapter: trained memories instead of fresh ones, in float32.

    Raises:
        ConversionError: the source does not fit the configuration, or the adapter the source.
    """

    def __init__(
        self,
        config: AllMemConfig,
        source: Source,
        dtype: torch.dtype | None,
        seed: int,
        adapter: Adapter | None = None,
    ) -> None:
        origin = source.provenance["name"]
        used = check_entries(config, source.entries, origin)
        self.config, self.source = config, source
        self.dtype = dtype or exact_type(source.entries, used)
        config.dtype = self.dtype
        if config.tie_word_embeddings and HEAD in source.entries:
            self._compare_head(origin)
        self._states = [torch.Generator().manual_seed(seed).get_state()]
        self._index = -1
        self._fresh: dict[str, Tensor] = {}
        self._trained: dict[str, Tensor] | None = None
        if adapter is not None:
            self._trained = adapter.memories(config, decoder_digest(self))

    def tensor(self, name: str) -> Tensor:
        """See ``ModelWeights``."""
        if MEMORY in name:
            return self._memory(name)
        return self._finite(name, self.source.tensor(self._place(name)))

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """See ``ModelWeights``."""
        if MEMORY in name:
            return self._memory(name)[first:end]
        return self._finite(name, self.source.rows(self._place(name), first, end))

    def factors(self, name: str, first: int, end: int) -> Tensor | None:
        """See ``ModelWeights``; there are none where weights were rounded to another type."""
        if MEMORY in name or self.dtype != torch.float32:
            return None
        found = self.source.factors(self._place(name), first, end)
        return None if found is None else self._finite(name, found)

    def type_of(self, name: str) -> torch.dtype:
        """Of a weight."""
        return torch.float32 if MEMORY in name and self._trained is not None else self.dtype

    @property
    def warm(self) -> bool:
        """Whether fresh memories are started from the attention."""
        return can_warm_start(empty_layer(self.config).allmem)

    def _place(self, name: str) -> str:
        return EMBEDDING if name == HEAD and self.config.tie_word_embeddings else name

    def _finite(self, name: str, values: Tensor) -> Tensor:
        """Values of the source in the type of the result."""
        return finite_as(values, self.dtype, name, self.source.provenance["name"])

    def _compare_head(self, origin: str) -> None:
        for piece in Table(self, EMBEDDING).pieces():
            head, embedding = (self.source.rows(name, *piece) for name in (HEAD, EMBEDDING))
            if not torch.equal(head, embedding):
                raise refuse_other_head(origin)

    def _memory(self, name: str) -> Tensor:
        if self._trained is not None:
            return self._trained[name]
        prefix, inner = name.split(MEMORY)
        index = int(prefix.rpartition(".")[2])
        if index != self._index:
            self._fresh = dict(self._initialized(index).named_parameters())
            self._index = index
        return self._fresh[inner].detach()

    def _initialized(self, index: int) -> Memory:
        """The fresh memory of a layer; those before it draw their numbers first."""
        layer = empty_layer(self.config)
        layer.allmem.to(self.dtype).to_empty(device="cpu")
        for at in range(min(index, len(self._states) - 1), index + 1):
            generator = torch.Generator()
            generator.set_state(self._states[at])
            initialize_memory(layer.allmem, generator)
            if at + 1 == len(self._states):
                self._states.append(generator.get_state())
        if can_warm_start(layer.allmem):
            for name, _ in list(layer.self_attn.named_parameters()):
                owner, _, leaf = name.rpartition(".")
                value = self.tensor(f"model.layers.{index}.self_attn.{name}")
                setattr(layer.self_attn.get_submodule(owner), leaf, nn.Parameter(value))
            warm_start(layer.allmem, layer.self_attn)
        return layer.allmem
