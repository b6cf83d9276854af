"""The types a head's rows may have: what they take, and what a ring gives back of keys and values.

int4 follows KIVI (arXiv 2402.02750): keys by channel over groups of tokens, values by token over
groups of channels, each group with a scale and a minimum in float16. What is not yet a whole group
waits as int8, and so do the sinks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from allmem_runtime.errors import UsageError

Turn = Callable[[Tensor, Tensor], Tensor]
"""The rotary embedding of [batch, heads, time, head_dim] at positions [time]."""


class Rows(NamedTuple):
    """Keys, turned, and values of one head, each [batch, 1, time, head_dim]."""

    key: Tensor
    value: Tensor


@dataclass(frozen=True, slots=True)
class Found:
    """What attention finds of a head's rows.

    Attributes:
        young: as they lie until their group is whole, and the sinks.
        old: as they lie from then on.
        sinks: rows before the first group.
        group: tokens that become old together; 0 where nothing does.
        recent: the latest rows that have room as young ones, whole groups.
    """

    young: Rows
    old: Rows
    sinks: int = 0
    group: int = 0
    recent: int = 0

    def first_young(self, now: Tensor) -> Tensor:
        """For queries at ``now``: rows from this position on are young."""
        if not self.group:
            return torch.zeros_like(now)
        begun = (now - self.sinks).div(self.group, rounding_mode="floor") + 1
        return (self.sinks + begun * self.group - self.recent).clamp(min=self.sinks)


class Element(Protocol):
    """A type of rows."""

    @property
    def name(self) -> str:
        """For a person."""

    def bytes(self, window: int, sinks: int, head_dim: int) -> int:
        """Of a head's ring: all rows with their scales, minima and what waits."""

    def found(self, rows: Rows, sinks: int, turn: Turn) -> Found:
        """What is given back of the rows of a text that begins at position 0."""


@dataclass(frozen=True, slots=True)
class Float16:
    """Rows as they are; what float16 rounds away is not looked at."""

    name: str = "float16"

    def bytes(self, window: int, sinks: int, head_dim: int) -> int:
        """See ``Element``."""
        return (window + sinks) * 4 * head_dim

    def found(self, rows: Rows, sinks: int, turn: Turn) -> Found:
        """See ``Element``."""
        return Found(rows, rows)


@dataclass(frozen=True, slots=True)
class Int8:
    """A float32 scale for every key and every value, as the operators have it."""

    name: str = "int8"

    def bytes(self, window: int, sinks: int, head_dim: int) -> int:
        """See ``Element``."""
        return (window + sinks) * 2 * (head_dim + 4)

    def found(self, rows: Rows, sinks: int, turn: Turn) -> Found:
        """See ``Element``."""
        rounded = Rows(eight_bits(rows.key), eight_bits(rows.value))
        return Found(rounded, rounded)


@dataclass(frozen=True, slots=True)
class Int4:
    """Four bits, grouped.

    Attributes:
        key_group: tokens that share a scale and a minimum in each channel of the keys.
        value_group: channels of a token's value that share them.
        recent: latest rows that lie as int8, at least a group of keys and a multiple of it.
        before_turning: whether keys lie as they are before the rotary embedding.
    """

    key_group: int = 32
    value_group: int = 64
    recent: int = 32
    before_turning: bool = False
    name: str = "int4"

    def __post_init__(self) -> None:
        """Refuse recent rows that are no whole groups."""
        if self.recent < self.key_group or self.recent % self.key_group:
            raise UsageError(
                f"The recent rows are {self.recent}, and keys become int4 in groups of "
                f"{self.key_group}.",
                f"Give --recent {-(-self.recent // self.key_group) * self.key_group}.",
            )

    def bytes(self, window: int, sinks: int, head_dim: int) -> int:
        """See ``Element``. Of the recent rows all but a group are always there."""
        waiting = Int8().bytes(self.recent, sinks, head_dim)
        groups = -(-max(0, window - (self.recent - self.key_group)) // self.key_group)
        keys = self.key_group * head_dim // 2 + 4 * head_dim
        value = head_dim // 2 + 4 * -(-head_dim // self.value_group)
        return waiting + groups * (keys + self.key_group * value)

    def found(self, rows: Rows, sinks: int, turn: Turn) -> Found:
        """See ``Element``."""
        young = Int8().found(rows, sinks, turn).young
        positions = torch.arange(rows.key.shape[2], device=rows.key.device)
        # An angle turned back leaves the key as it was, where the embedding only turns.
        key = turn(rows.key.float(), -positions) if self.before_turning else rows.key
        grouped = four_bits(key[:, :, sinks:].mT, self.key_group).mT
        key = torch.cat([key[:, :, :sinks], grouped], dim=2)
        if self.before_turning:
            key = turn(key, positions)
        old = Rows(key.to(rows.key.dtype), four_bits(rows.value, self.value_group))
        return Found(young, old, sinks, self.key_group, self.recent)


def eight_bits(rows: Tensor) -> Tensor:
    """[…, channels] to int8 with a scale for each row, and back."""
    scale = rows.float().abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
    return ((rows.float() / scale).round() * scale).to(rows.dtype)


def four_bits(x: Tensor, group: int) -> Tensor:
    """[…, n] to 0 … 15 and back, with a scale and a minimum for each ``group`` of the last axis."""
    size = x.shape[-1]
    if not size:
        return x
    more = x[..., -1:].expand(*x.shape[:-1], -size % group)  # changes no minimum and no maximum
    grouped = torch.cat([x, more], dim=-1).float().unflatten(-1, (-1, group))
    low = grouped.amin(-1, keepdim=True).half().float()
    scale = ((grouped.amax(-1, keepdim=True) - low) / 15).half().float()
    steps = ((grouped - low) / scale.clamp(min=1e-30)).round().clamp(0, 15)
    rounded: Tensor = (low + steps * scale).flatten(-2)
    return rounded[..., :size].to(x.dtype)
