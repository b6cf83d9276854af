"""The file of a head table: what every key/value head's reach is worth, and of which model."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allmem_exporters.errors import ExportError
from allmem_runtime.files.atomic import USUAL, replace_text
from allmem_runtime.strict_json import is_number, is_whole, read_object

FORMAT = "allmem-heads"
VERSION = 1
_AGAIN = "Make it again with `allmem heads`."
MAX_BYTES = 1 << 24
_MOST = 1e9


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
            return _checked(read_object(path, MAX_BYTES))
        except OSError as error:
            reason = error.strerror or str(error)
            raise ExportError(f"{path} cannot be read: {reason}.", "Check the path.") from None
        except (ValueError, KeyError) as error:
            raise ExportError(f"{path} is no head table: {error}.", _AGAIN) from None


def _checked(values: dict[str, Any]) -> HeadTable:
    if values.get("format") != FORMAT:
        raise ValueError("it does not say that it is one")
    if values.get("version") != VERSION:
        raise ValueError(f"its version is {values.get('version')!r}, known is {VERSION}")
    windows = values["windows"]
    if (
        not isinstance(windows, list)
        or len(windows) < 2
        or not all(is_whole(window, 1, 1 << 24) for window in windows)
        or sorted(set(windows)) != windows
    ):
        raise ValueError("windows must be two or more ascending integers")
    sinks = values["sinks"]
    if not is_whole(sinks, 0, 1 << 20):
        raise ValueError(f"sinks is {sinks!r}")
    if not isinstance(values["decoder"], str):
        raise ValueError("decoder is no digest")
    return HeadTable(
        decoder=values["decoder"],
        windows=tuple(windows),
        sinks=sinks,
        worth=_worth(values["worth"], len(windows) - 1),
        divergence={kind: float(v) for kind, v in _by_kind(values, "divergence").items()},
        sequences={kind: int(v) for kind, v in _by_kind(values, "sequences").items()},
    )


def _worth(worth: Any, further: int) -> tuple[tuple[tuple[float, ...], ...], ...]:
    """The numbers of every head: as many for each, and as many heads in each layer."""
    layers = worth if isinstance(worth, list) else []
    if not all(isinstance(layer, list) for layer in layers) or not any(layers):
        raise ValueError("worth must have a list of heads for each layer")
    if len({len(layer) for layer in layers}) > 1:
        raise ValueError("layers have different numbers of heads")
    for head in (head for layer in layers for head in layer):
        numbers = head if isinstance(head, list) and len(head) == further else [None]
        if not all(is_number(number, -_MOST, _MOST) for number in numbers):
            raise ValueError("worth must have a number for each further window of each head")
    return tuple(tuple(tuple(map(float, head)) for head in layer) for layer in layers)


def _by_kind(values: dict[str, Any], key: str) -> dict[str, float]:
    """Numbers by kind of sequence."""
    found = values[key]
    if not isinstance(found, dict) or not all(is_number(v, 0, _MOST) for v in found.values()):
        raise ValueError(f"{key} must have a number for each kind")
    return found
