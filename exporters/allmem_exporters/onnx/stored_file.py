"""The matrices of an exported folder, mapped from its file of weights as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from allmem_exporters.quantization.stored_format import StoredMatrix
from allmem_runtime.spec import GRAPH_FILE


class StoredFile(Mapping[str, StoredMatrix]):
    """What lies in the file for each matrix of an export.

    Args:
        folder: the export.
        stored: its matrices, of which names, formats and sizes are used.
        tables: has the names of those that are tables.
    """

    def __init__(
        self, folder: Path, stored: Mapping[str, StoredMatrix], tables: Mapping[str, str]
    ) -> None:
        self._folder, self._stored, self._tables = folder, stored, tables
        graph = onnx.load(folder / GRAPH_FILE, load_external_data=False).graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}

    def __getitem__(self, name: str) -> StoredMatrix:
        one = self._stored[name]
        return replace(one, tensors={part: self._part(one, part) for part in one.tensors})

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def _part(self, one: StoredMatrix, part: str) -> NDArray[Any]:
        expected = one.tensors[part]
        array = file_array(self._folder, self._tensors[f"{one.name}.{part}"])
        if one.format.turned_products and one.name not in self._tables:
            array = array.reshape(expected.shape[::-1]).T
        else:
            array = array.reshape(expected.shape)
        return array


def file_array(folder: Path, tensor: onnx.TensorProto) -> NDArray[Any]:
    """The values of an export's tensor: a copy, or mapped where they lie in its file of weights."""
    place = {entry.key: entry.value for entry in tensor.external_data}
    if not place:
        inside: NDArray[Any] = onnx.numpy_helper.to_array(tensor).copy()
        return inside
    mapped: NDArray[Any] = np.memmap(
        folder / place["location"],
        onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type),
        "c",  # nobody writes; PyTorch warns of what cannot be written
        int(place.get("offset", 0)),
        tuple(tensor.dims),
    )
    return mapped
