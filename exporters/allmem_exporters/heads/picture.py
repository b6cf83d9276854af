"""The heat map of a head table: layers across, heads upwards, worth as color."""

from __future__ import annotations

from pathlib import Path

from allmem_exporters.heads.head_table import HeadTable
from allmem_runtime.plotting import picture


def draw(table: HeadTable, path: Path) -> None:
    """Write the picture.

    Raises:
        UsageError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    worth = [[sum(head) for head in layer] for layer in table.worth]
    with picture(path, 1, 1, (8, 3)) as figure:
        axes = figure.axes[0]
        image = axes.imshow(list(zip(*worth, strict=True)), aspect="auto", cmap="viridis")
        axes.set_xlabel("layer")
        axes.set_ylabel("key/value head")
        axes.set_title(f"Share of the divergence taken away beyond {table.windows[0]} tokens")
        figure.colorbar(image, ax=axes)
