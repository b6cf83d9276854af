"""What transformers' own code makes of a text, with one weight in memory at a time.

The model is built without values. Each of its modules gets its weights when it is called and loses
them again, so that a model of any size is read in the memory of its largest matrix. Of embedding
and head there are only the rows of some tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from allmem_exporters.pretrained_model import empty_model
from allmem_exporters.sources.pretrained import Pretrained


class PretrainedReading:
    """A language model of transformers that knows some tokens only.

    Args:
        pretrained: the source.
        vocabulary: the tokens that it knows, by their rows.
        window: in place of the one that all layers have, where they have one.
        stored: the type that every weight is rounded to first.
        dtype: that it computes in.
        attention: which function its attentions call.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        vocabulary: Sequence[int],
        window: int,
        stored: torch.dtype,
        dtype: torch.dtype,
        attention: str = "eager",
    ) -> None:
        self._weights, self._vocabulary = pretrained.weights, vocabulary
        self._stored, self._dtype = stored, dtype
        config = _with_few_tokens(pretrained.config, len(vocabulary), window)
        self.model = empty_model(config, attention, pretrained.divisors)
        for name, buffer in self.model.named_buffers():
            if buffer.dtype.is_floating_point and bool(buffer.isnan().any()):
                owner, _, leaf = name.rpartition(".")
                values = self._weights.tensor(name).to(self._stored).to(self._dtype)
                self.model.get_submodule(owner)._buffers[leaf] = values
        ends = [self.model.get_input_embeddings(), self.model.get_output_embeddings()]
        tied = bool(getattr(pretrained.config, "tie_word_embeddings", False))
        names = {id(module): name for name, module in self.model.named_modules()}
        embedding = f"{names[id(ends[0])]}.weight"
        for path, module in self.model.named_modules():
            owned = {leaf: f"{path}.{leaf}" for leaf in module._parameters}
            if any(module is end for end in ends):
                owned |= {"weight": embedding} if tied else {}
                module.register_forward_pre_hook(self._loading(owned, some_rows=True))
            elif owned:
                module.register_forward_pre_hook(self._loading(owned, some_rows=False))
            module.register_forward_hook(_unloading)

    @torch.no_grad()
    def logits(self, tokens: Sequence[int]) -> Tensor:
        """Of each token the logits of the vocabulary, [time, vocabulary].

        Args:
            tokens: a text, by places in the vocabulary.
        """
        ids = torch.tensor([list(tokens)])
        found: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return found[0]

    @torch.no_grad()
    def rotations(self, positions: Sequence[int]) -> Iterator[tuple[str | None, Tensor, Tensor]]:
        """Of each rotary embedding the kind of layers that it is for, cosines and sines.

        The kind is None where it is for all layers; the others are [positions, pairs].
        """
        for module in self.model.modules():
            if type(module).__name__.endswith("RotaryEmbedding"):
                for kind in getattr(module, "layer_types", [None]):
                    asked = (torch.zeros(1), torch.tensor([list(positions)]))
                    turned = module(*asked) if kind is None else module(*asked, kind)
                    yield kind, *(_once(part[0]) for part in turned)

    def _loading(self, owned: dict[str, str], *, some_rows: bool) -> Any:
        def load(module: nn.Module, inputs: object) -> None:
            for leaf, name in owned.items():
                if module._parameters[leaf] is None:
                    continue
                values = self._some_rows(name) if some_rows else self._weights.tensor(name)
                exact = values.to(self._stored).to(self._dtype)
                module._parameters[leaf] = nn.Parameter(exact, requires_grad=False)

        return load

    def _some_rows(self, name: str) -> Tensor:
        return torch.cat([self._weights.rows(name, row, row + 1) for row in self._vocabulary])


def _once(turned: Tensor) -> Tensor:
    """Each pair's number, which stands there twice: beside each other, or half a head apart."""
    if torch.equal(turned[:, ::2], turned[:, 1::2]):
        return turned[:, ::2]
    return turned[:, : turned.shape[1] // 2]


def _unloading(module: nn.Module, inputs: object, output: object) -> None:
    for leaf, parameter in module._parameters.items():
        if parameter is not None:
            empty = torch.empty_like(parameter, device="meta")
            module._parameters[leaf] = nn.Parameter(empty, requires_grad=False)


def _with_few_tokens(config: PretrainedConfig, tokens: int, window: int) -> PretrainedConfig:
    """The configuration of the same model with fewer tokens and another window, if it has one."""
    changed = deepcopy(config)
    changed.vocab_size, changed.pad_token_id = tokens, None
    if getattr(changed, "sliding_window", None) is not None:
        changed.sliding_window = window
    return changed
