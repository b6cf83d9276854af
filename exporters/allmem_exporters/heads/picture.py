"""The heat map of a head table: layers across, heads upwards, worth as color."""

from __future__ import annotations

from pathlib import Path

from allmem_exporters.heads.head_table import HeadTable
from allmem_runtime.plotting import heat_map


def draw(table: HeadTable, path: Path) -> None:
    """Write the picture.

    Raises:
        UsageError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    worth = [[sum(head) for head in layer] for layer in table.worth]
    heat_map(path, worth, f"Share of the divergence taken away beyond {table.windows[0]} tokens")
