"""Where the numbers of a tensor lie that are not in the graph's own file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from allmem_runtime.errors import ModelFileError
from allmem_runtime.files.protobuf import WireError

_KNOWN = frozenset({"location", "offset", "length", "checksum"})


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a tensor lies: bytes of a file beside the graph."""

    file: str
    offset: int
    length: int


def extent_of(entries: Sequence[tuple[str, str]], graph: Path) -> Extent:
    """What the entries of a tensor's external data say.

    Args:
        entries: keys and values.
        graph: the file they are in, for the message.

    Raises:
        WireError: they are not those of an export.
        ModelFileError: the weights are laid out for one CPU.
    """
    for key, _ in entries:
        if key.startswith("prepacked"):
            raise ModelFileError(
                f"{graph} holds weights laid out for one CPU ({key[:40]!r}), which are "
                "only right where they were made.",
                "Export the model again; `allmem prepare` lays its weights out here.",
            )
    known = dict(entries)
    if len(known) != len(entries):
        raise WireError("an entry of external data is there twice")
    if odd := sorted(known.keys() - _KNOWN):
        raise WireError(f"external data has the unknown entry {odd[0][:40]!r}")
    if "location" not in known:
        raise WireError("external data lacks its location")
    numbers = {"offset": 0, "length": 0}
    for key in numbers.keys() & known.keys():
        value = known[key]
        if not (value.isascii() and value.isdigit() and len(value) < 16):
            raise WireError(f"external data has the {key} {value[:40]!r}")
        numbers[key] = int(value)
    return Extent(known["location"], numbers["offset"], numbers["length"])
