"""The file of a head table: what every key/value head's reach is worth, and of which model."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allmem_exporters.errors import ExportError
from allmem_runtime.files.atomic import USUAL, replace_text

FORMAT = "allmem-heads"
VERSION = 1
_AGAIN = "Make it again with `allmem heads`."
MAX_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class HeadTable:
    """What reach is worth.

    Attributes:
        decoder: digest of the decoder's weights (``base_digest``), without the memories.
        windows: ascending, in tokens; the first is what every head has at least.
        sinks: first tokens that every head saw.
        worth: [layers][kv_heads][len(windows) - 1], the share of the divergence at the shortest
            window that each further window takes away, over all kinds alike.
        divergence: by kind of sequence, nats at the shortest window.
        sequences: by kind, how many were measured.
    """

    decoder: str
    windows: tuple[int, ...]
    sinks: int
    worth: tuple[tuple[tuple[float, ...], ...], ...]
    divergence: dict[str, float]
    sequences: dict[str, int]

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            StorageError: it cannot be written.
        """
        values = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        replace_text(path, json.dumps(values) + "\n", mode=USUAL)

    @classmethod
    def read(cls, path: Path) -> HeadTable:
        """Read a table strictly.

        Raises:
            ExportError: it is missing, damaged or no head table; the text names the file.
        """
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES} bytes")
            values: Any = json.loads(path.read_text(encoding="utf-8"))
            return _checked(values)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ExportError(f"{path} cannot be read: {reason}.", "Check the path.") from None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ExportError(f"{path} is no head table: {error}.", _AGAIN) from None


def _checked(values: Any) -> HeadTable:
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError("it does not say that it is one")
    if values.get("version") != VERSION:
        raise ValueError(f"its version is {values.get('version')!r}, known is {VERSION}")
    windows = values["windows"]
    if (
        not isinstance(windows, list)
        or len(windows) < 2
        or not all(type(window) is int and 1 <= window <= 1 << 24 for window in windows)
        or sorted(set(windows)) != windows
    ):
        raise ValueError("windows must be two or more ascending integers")
    sinks = values["sinks"]
    if type(sinks) is not int or not 0 <= sinks <= 1 << 20:
        raise ValueError(f"sinks is {sinks!r}")
    worth = values["worth"]
    heads = len(worth[0])
    for layer in worth:
        if len(layer) != heads:
            raise ValueError("layers have different numbers of heads")
        for head in layer:
            if len(head) != len(windows) - 1 or not all(math.isfinite(number) for number in head):
                raise ValueError("worth must have a number for each further window of each head")
    if not isinstance(values["decoder"], str):
        raise ValueError("decoder is no digest")
    return HeadTable(
        decoder=values["decoder"],
        windows=tuple(windows),
        sinks=sinks,
        worth=tuple(tuple(tuple(map(float, head)) for head in layer) for layer in worth),
        divergence={str(kind): float(v) for kind, v in values["divergence"].items()},
        sequences={str(kind): int(v) for kind, v in values["sequences"].items()},
    )
