"""What transformers' own code of a decoder does around its attentions, found by running it.

It runs without weights: products and tables hand on what they get, with some noise, so a model of
any size is probed in a moment. What the rope turns is seen where the queries arrive, whatever
function turned them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from allmem_exporters.generic.interface import NAME, PLACE, Unsupported
from allmem_exporters.generic.rope import (
    CLOSE,
    Angles,
    Answer,
    Rope,
    frequencies_of,
    pairs,
    rotary_modules,
)
from allmem_exporters.pretrained_model import empty_model

_ROWS = 64
"""Tokens that the probed model knows."""
_ANGLES = 1e-4
"""Relative RMS by which a rope may be off: angles far out are rounded to float32 by all."""
_EXPERTS = ("moe", "experts", "router")


@dataclass(frozen=True, slots=True)
class Site:
    """An attention and what it is called with.

    Attributes:
        path: of its module.
        query_heads: how many there are.
        kv_heads: likewise, of keys and values.
        head_dim: width of queries and keys.
        value_dim: width of values.
        scale: of the products of queries and keys.
        window: that it was trained with; None for all tokens.
        rope: of queries and keys.
        sink_logits: whether a learned logit of each query head joins its softmax.
    """

    path: str
    query_heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    scale: float
    window: int | None
    rope: Rope
    sink_logits: bool


@dataclass(frozen=True, slots=True)
class Probed:
    """What was found of a decoder.

    Attributes:
        sites: its attentions, in the order of layers.
        angles: how many columns its rotary embeddings give out, by their paths.
    """

    sites: tuple[Site, ...]
    angles: dict[str, int]


def probe(config: PretrainedConfig) -> Probed:
    """Find the attentions of a decoder and what its rope turns.

    Args:
        config: of transformers.

    Raises:
        Unsupported: it has what cannot be computed here; says what.
    """
    with torch.no_grad():
        return _Probe(config).found()


@dataclass(frozen=True, slots=True)
class _Call:
    """What one attention was called with; tensors are [1, heads, time, dim]."""

    path: str
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    window: int | None
    sink_logits: bool

    def differs(self, other: _Call, start: int = 0) -> bool:
        """Whether anything differs that stands at time ``start`` or later."""
        mine, theirs = (
            [one[:, :, start:] for one in (call.query, call.key, call.value)]
            for call in (self, other)
        )
        return any(_off(one, two) > CLOSE for one, two in zip(mine, theirs, strict=True))


class _Probe:
    def __init__(self, config: PretrainedConfig) -> None:
        self.config = deepcopy(config)
        self.config.vocab_size, self.config.pad_token_id = _ROWS, None
        self.model = empty_model(self.config, NAME)
        if not isinstance(self.model.get_output_embeddings(), nn.Linear):
            raise Unsupported("a head that is no product")
        self.calls: list[_Call] = []
        self.rotaries = rotary_modules(self.model)
        self.angles = {path: Angles(rotary, path) for path, rotary in self.rotaries.items()}
        self._fill()
        for path, angles in self.angles.items():
            self.model.set_submodule(path, angles)
        for path, module in self.model.named_modules():
            setattr(module, PLACE, partial(self._record, path))
        self.positions = self._positions()
        self.tokens = list(range(1, len(self.positions) + 1))
        self.near = list(range(len(self.positions)))

    def found(self) -> Probed:
        """Run it, turned in several ways."""
        still = self.run(self.tokens, self.near, _still)
        self._check_layers([call.path for call in still])
        self._check_places(still)
        columns = _Columns()
        self.run(self.tokens, self.near, columns.count)
        turned = self.run(self.tokens, self.near, _turned)
        numbered = [self.run(self.tokens, self.near, _Numbered(bit)) for bit in range(columns.bits)]
        sites = []
        for at, call in enumerate(still):
            bits = [_one(calls[at]) for calls in numbered]
            rope = self._rope(_one(call), _one(turned[at]), bits, columns)
            sites.append(self._site(call, rope))
        far = self.run(self.tokens, self.positions, None)
        for site, before, after in zip(sites, still, far, strict=True):
            for one, other in ((before.query, after.query), (before.key, after.key)):
                if not _off(site.rope.turn(one, self.positions), other) <= _ANGLES:
                    raise Unsupported("a rope whose frequencies depend on the length read")
        return Probed(tuple(sites), columns.widths)

    def run(
        self, tokens: Sequence[int], positions: Sequence[int], answer: Answer | None
    ) -> list[_Call]:
        """What all attentions are called with."""
        self.calls = []
        for angles in self.angles.values():
            angles.answer = answer
        if isinstance(answer, _Numbered):
            answer.given = 0
        self.model(
            input_ids=torch.tensor([list(tokens)]),
            position_ids=torch.tensor([list(positions)]),
            use_cache=False,
        )
        return self.calls

    def _record(
        self,
        path: str,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None,
        sink_logits: Tensor | None,
    ) -> Tensor:
        """Note a call; every token gets its own value."""
        has_sinks = sink_logits is not None
        self.calls.append(_Call(path, query, key, value, float(scale), window, has_sinks))
        heads, kv_heads = query.shape[1], key.shape[1]
        if sink_logits is not None and tuple(sink_logits.shape) != (heads,):
            raise Unsupported("attention-sink logits that are not one for each query head")
        if heads % kv_heads or value.shape[1] != kv_heads or value.shape[-1] > query.shape[-1]:
            raise Unsupported("heads of sizes that do not go together")
        return value.repeat_interleave(heads // kv_heads, dim=1).transpose(1, 2)

    def _fill(self) -> None:
        """Let products and tables do without weights, and give values to all that is small."""
        for number, (path, module) in enumerate(self.model.named_modules()):
            kind = type(module).__name__
            if any(name in kind.lower() for name in _EXPERTS):
                raise Unsupported("a mixture of experts")
            if isinstance(module, nn.Linear):
                module.__dict__["forward"] = _handing_on(module, number)
            elif isinstance(module, nn.Embedding):
                module.__dict__["forward"] = _looking_up(module, number)
            else:
                for name, parameter in module._parameters.items():
                    if parameter is None:
                        continue
                    if parameter.dim() > 1:
                        raise Unsupported(f"the weight {path}.{name}, which is no plain product")
                    values = 0.5 + torch.rand(parameter.shape, generator=_generator(number))
                    module._parameters[name] = nn.Parameter(values, requires_grad=False)
                for name, buffer in module._buffers.items():
                    if buffer is not None and buffer.isnan().any():
                        module._buffers[name] = torch.full_like(buffer, 0.5)

    def _check_layers(self, paths: Sequence[str]) -> None:
        layers = self.config.num_hidden_layers
        if not paths:
            raise Unsupported("attention that does not call transformers' AttentionInterface")
        if len(set(paths)) != len(paths):
            raise Unsupported("attentions that are called several times")
        if len(paths) != layers:
            raise Unsupported(f"{layers} layers, of which {len(paths)} have attention")
        sizes: list[tuple[int, ...]] = []

        def note(module: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor],
                 output: Tensor | tuple[Tensor, ...]) -> None:  # fmt: skip
            hidden = given[0] if given else named["hidden_states"]
            result = output if isinstance(output, Tensor) else output[0]
            sizes.extend((tuple(hidden.shape), tuple(result.shape)))

        hooks = [
            self.model.get_submodule(path).register_forward_hook(note, with_kwargs=True)
            for path in paths
        ]
        self.run(self.tokens, self.near, _still)
        for hook in hooks:
            hook.remove()
        if set(sizes) != {(1, len(self.tokens), self.config.hidden_size)}:
            raise Unsupported("attentions that do not take and give the token stream")

    def _check_places(self, still: Sequence[_Call]) -> None:
        """Positions act through the rope alone, and tokens on each other in attention alone."""
        moved = self.run(self.tokens, self.positions, _still)
        if any(a.differs(b) for a, b in zip(still, moved, strict=True)):
            raise Unsupported("positions that act otherwise than by a rope")
        other = self.run([_ROWS - 1, *self.tokens[1:]], self.near, _still)
        if any(a.differs(b, start=1) for a, b in zip(still, other, strict=True)):
            raise Unsupported("tokens that act on each other outside of attention")

    def _site(self, call: _Call, rope: Rope) -> Site:
        (_, heads, _, dim), (_, kv_heads, _, width) = call.query.shape, call.value.shape
        return Site(
            call.path, heads, kv_heads, dim, width, call.scale, call.window, rope, call.sink_logits
        )

    def _rope(
        self, still: Tensor, turned: Tensor, numbered: Sequence[Tensor], columns: _Columns
    ) -> Rope:
        """Of a query [dim] as it is, turned by a right angle, and turned forth and back."""
        found = pairs(still, turned)
        if not found:
            return Rope()
        frequencies, amplitudes = [], []
        for first, _, sign in found:
            bits = [int(one[first] * turned[first] < 0) << at for at, one in enumerate(numbered)]
            path, angle, amplitude = columns.at(sum(bits))
            known = frequencies_of(self.rotaries[path])
            nearest = min(known, key=lambda one: abs(one - angle))
            if abs(nearest - angle) > CLOSE * (abs(angle) + CLOSE):
                raise Unsupported("a rope whose angles are not positions times frequencies")
            frequencies.append(sign * nearest)
            amplitudes.append(_exact_amplitude(self.rotaries[path], amplitude))
        if max(amplitudes) != min(amplitudes):
            raise Unsupported("a rope with several amplitudes")
        firsts, seconds = [pair[0] for pair in found], [pair[1] for pair in found]
        rest = sorted(set(range(len(still))) - {*firsts, *seconds})
        order = (*firsts, *seconds, *rest)
        plain = order == tuple(range(len(still)))
        return Rope(tuple(frequencies), None if plain else order, amplitudes[0])

    def _positions(self) -> list[int]:
        """Before and beyond all lengths that a rope may know."""
        longest = getattr(self.config, "max_position_embeddings", None) or 2048
        rope = getattr(self.config, "rope_parameters", None) or {}
        original = rope.get("original_max_position_embeddings")
        original = original if isinstance(original, int) else longest
        return sorted({0, 1, 17, original - 1, original, original + 1, longest - 1, 2 * longest})


class _Columns:
    """The columns of all rotary embeddings, in the order in which they are asked for."""

    def __init__(self) -> None:
        self.widths: dict[str, int] = {}
        self._found: list[tuple[str, float, float]] = []

    def count(self, path: str, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Note angle and amplitude of each column at position 1."""
        width = cos.shape[-1]
        if self.widths.setdefault(path, width) != width:
            raise Unsupported("a rope of several widths")
        wide = cos[0, 1].double(), sin[0, 1].double()
        angles, sizes = torch.atan2(wide[1], wide[0]).tolist(), torch.hypot(*wide).tolist()
        self._found += [(path, *one) for one in zip(angles, sizes, strict=True)]
        return cos, sin

    @property
    def bits(self) -> int:
        """That number all columns."""
        return max(len(self._found) - 1, 0).bit_length()

    def at(self, number: int) -> tuple[str, float, float]:
        """(rotary embedding, angle at position 1, amplitude) of a column."""
        if number >= len(self._found):
            raise Unsupported("a rope whose columns cannot be told apart")
        return self._found[number]


class _Numbered:
    """Turns each column by a right angle, forth or back by one bit of its number."""

    def __init__(self, bit: int) -> None:
        self.bit, self.given = bit, 0

    def __call__(self, path: str, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        numbers = self.given + torch.arange(cos.shape[-1])
        self.given += cos.shape[-1]
        signs = 1.0 - 2.0 * (numbers >> self.bit & 1)
        return torch.zeros_like(cos), signs.expand(sin.shape).clone()


def _still(path: str, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones_like(cos), torch.zeros_like(sin)


def _turned(path: str, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(cos), torch.ones_like(sin)


def _one(call: _Call) -> Tensor:
    """A query, [dim]."""
    return call.query[0, 0, 1]


def _generator(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def _handing_on(module: nn.Linear, number: int) -> Callable[[Tensor], Tensor]:
    """A product that puts what it gets in its outputs one after the other, with some noise."""
    noise = torch.randn(module.out_features, generator=_generator(number))
    places = torch.arange(module.out_features) % module.in_features
    return lambda x: x[..., places] + noise


def _looking_up(module: nn.Embedding, number: int) -> Callable[[Tensor], Tensor]:
    """A table of which every row is another one, however many it has."""
    waves = torch.randn(module.embedding_dim, generator=_generator(number)).double()
    return lambda ids, *_, **__: torch.sin((ids[..., None] + 1) * waves).float()


def _off(one: Tensor, other: Tensor) -> float:
    """Relative RMS of a difference."""
    scale = other.double().square().mean().sqrt()
    return float((one - other).double().square().mean().sqrt() / scale.clamp(min=1e-30))


def _exact_amplitude(rotary: nn.Module, found: float) -> float:
    """The factor as the rotary embedding states it, where that is what was found."""
    stated = [v for n, v in vars(rotary).items() if n.endswith("attention_scaling")]
    return next((float(v) for v in stated if abs(v - found) <= CLOSE * found), found)
