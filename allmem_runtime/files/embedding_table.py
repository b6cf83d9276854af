"""Rows of a model's token embedding, read from its weights file without loading the table.

It knows the layouts in which exports store an embedding whose rows NumPy can pick: float32,
float16, and the interleaved eight bits of our own products (`allmem_ops.reference.product`).
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allmem_ops.reference.product import BLOCK, TILE
from allmem_runtime.files.onnx_scan import EMBEDDING
from allmem_runtime.files.package import Package

_GROUP = 4
"""Numbers of an output that lie side by side."""

_PLAIN: dict[str, tuple[str, np.dtype[Any]]] = {
    "float32": (EMBEDDING, np.dtype("<f4")),
    "float16": (f"{EMBEDDING}.float16", np.dtype("<f2")),
}
"""Name and type of a table of floats."""


class EmbeddingTable:
    """The embedding of a model's tokens.

    Args:
        vocabulary: rows.
        numbers: [tokens, hidden] floats, or [tiles, blocks, groups, TILE, _GROUP] integers around
            128.
        scales: [tiles, blocks, TILE], with integers only.
    """

    def __init__(
        self, vocabulary: int, numbers: NDArray[Any], scales: NDArray[np.float16] | None
    ) -> None:
        self.vocabulary = vocabulary
        self._numbers, self._scales = numbers, scales

    @classmethod
    def of(cls, package: Package) -> EmbeddingTable | None:
        """That of a model; None if it is stored in another way.

        Raises:
            OSError: the weights file cannot be read.
        """
        extents, vocabulary = package.scan.embedding, package.manifest.backbone.vocab_size

        def mapped(name: str, dtype: np.dtype[Any]) -> NDArray[Any] | None:
            extent = extents.get(name)
            if extent is None or not extent.length or extent.length % dtype.itemsize:
                return None
            whole = _map(package.folder / extent.file)
            return np.frombuffer(whole, dtype, extent.length // dtype.itemsize, extent.offset)

        plain = _PLAIN.get(package.manifest.weights)
        if plain is not None:
            floats = mapped(*plain)
            if floats is None or floats.size % vocabulary:
                return None
            return cls(vocabulary, floats.reshape(vocabulary, -1), None)
        tiles = -(-vocabulary // TILE)
        numbers = mapped(f"{EMBEDDING}.numbers", np.dtype("u1"))
        scales = mapped(f"{EMBEDDING}.scales", np.dtype("<f2"))
        if numbers is None or scales is None or numbers.size != scales.size * BLOCK:
            return None
        if scales.size % (tiles * TILE):
            return None
        shape = (tiles, -1, BLOCK // _GROUP, TILE, _GROUP)
        return cls(vocabulary, numbers.reshape(shape), scales.reshape(tiles, -1, TILE))

    def rows(self, tokens: NDArray[np.int64], width: int) -> NDArray[np.float32]:
        """The first ``width`` elements of the rows of tokens, or all where there are fewer.

        Args:
            tokens: [n] ids below the size of the vocabulary.
            width: a multiple of 32.

        Returns:
            [n, width].
        """
        if self._scales is None:
            return self._numbers[tokens, :width].astype(np.float32)
        tile, lane, blocks = tokens // TILE, tokens % TILE, width // BLOCK
        # Indices on both sides of slices: [n, blocks, groups, _GROUP].
        numbers = self._numbers[tile, :blocks, :, lane].astype(np.float32)
        scales = self._scales[tile, :blocks, lane].astype(np.float32)
        wide = (numbers.reshape(*scales.shape, BLOCK) - 128) * scales[..., None]
        return wide.reshape(len(tokens), -1)


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
