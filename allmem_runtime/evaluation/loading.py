"""Models of a table, loaded when they are wanted and kept as long as there is room for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.evaluation.rows import Group
from allmem_runtime.files.package import Package
from allmem_runtime.machine import available_memory
from allmem_runtime.model import Model, load

BLOCK = 8
"""Prompts in a row for one model where not all models fit: loading one takes seconds."""
_COPIES = 2
"""Weights lie in memory as they are and as the kernels want them; states come in pairs."""
_UNKNOWN_ROOM = 1 << 30


class Models:
    """Loads models, and drops the one that was wanted longest ago when the room is full.

    Args:
        options: where and how they run.
        room: bytes for all models together; None for half of what is free now.
    """

    def __init__(self, options: EngineOptions, room: int | None = None) -> None:
        self._options = options
        self._room = (available_memory() or _UNKNOWN_ROOM) // 2 if room is None else room
        self._kept: dict[Path, tuple[Model, int]] = {}

    def get(self, package: Package) -> Model:
        """The model of this folder."""
        found = self._kept.pop(package.folder, None)
        if found is None:
            need = _bytes(package)
            while self._kept and need + sum(n for _, n in self._kept.values()) > self._room:
                del self._kept[next(iter(self._kept))]
            found = load(package.folder, self._options), need
        self._kept[package.folder] = found
        return found[0]

    def all_fit(self, groups: Sequence[Group]) -> bool:
        """Whether the models of all rows can be kept at once; on a card this is not tried."""
        if len(groups) == 1:
            return True
        on_card = any(model.device.name != "cpu" for model, _ in self._kept.values())
        return not on_card and sum(_bytes(group.package) for group in groups) <= self._room


def _bytes(package: Package) -> int:
    files = sum(record.bytes for record in package.manifest.files.values())
    return _COPIES * (files + package.manifest.state.nbytes)
