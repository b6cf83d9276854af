"""Pictures of measurements, drawn by matplotlib where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from allmem_runtime.errors import StorageError, UsageError

PICTURES = (".png", ".pdf", ".svg", ".eps", ".jpg", ".jpeg")
"""Endings that matplotlib draws everywhere."""


def check_plot(path: Path) -> None:
    """Find out before hours of reading, not after.

    Raises:
        UsageError: the name ends in no kind of picture, matplotlib is missing, or the folder is.
    """
    if path.suffix.lower() not in PICTURES:
        raise UsageError(
            f"--plot {path}: {path.suffix or 'a name without an ending'} is no kind of picture.",
            f"Let the name end in one of {', '.join(PICTURES)}.",
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "--plot needs matplotlib, which is not installed.",
            "Install it with `pip install matplotlib`, or leave --plot out.",
        )
    if not path.parent.is_dir():
        raise UsageError(f"There is no folder {path.parent}.", "Make it, or name another.")


@contextmanager
def picture(path: Path, down: int, across: int, size: tuple[float, float]) -> Iterator[Any]:
    """A figure to draw on, with its panels in ``figure.axes``; it is written at the end.

    Args:
        path: its ending chooses the format.
        down: rows of panels.
        across: panels in a row.
        size: width and height, in inches.

    Raises:
        StorageError: the file cannot be written.
    """
    figure: Any = importlib.import_module("matplotlib.figure").Figure(size, layout="constrained")
    figure.subplots(down, across)
    yield figure
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: the plot could not be written ({error}).", "") from None


def heat_map(path: Path, layers: Sequence[Sequence[float]], title: str) -> None:
    """Draw a number of each key/value head: layers across, heads upwards.

    Args:
        path: its ending chooses the format.
        layers: [layers][kv_heads].
        title: what the numbers are.

    Raises:
        StorageError: the file cannot be written.
    """
    with picture(path, 1, 1, (8, 3)) as figure:
        axes = figure.axes[0]
        rows = list(zip(*layers, strict=True))
        image = axes.imshow(rows, aspect="auto", cmap="viridis", origin="lower")
        axes.set_xlabel("layer")
        axes.set_ylabel("key/value head")
        axes.set_yticks(range(len(rows)))
        axes.set_title(title)
        figure.colorbar(image, ax=axes)
