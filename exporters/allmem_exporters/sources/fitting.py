"""Whether the weights of a source are those that its decoder needs, and in which type they fit."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from allmem_exporters.errors import ConversionError
from allmem_exporters.tensor_reader import Entry

PLAIN = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Types of weights that can be converted."""


def check_fit(
    entries: Mapping[str, Entry],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    backbone: str,
    origin: str,
    may_lack: Collection[str] = (),
) -> None:
    """Hold the weights of a source against what its decoder needs.

    Args:
        entries: types and shapes of the weights by name; what is not used is not among them.
        wanted: shapes of what the decoder needs.
        backbone: family of the decoder.
        origin: name for error messages.
        may_lack: what is made of others where it is missing.

    Raises:
        ConversionError: a weight is missing, left over, misshapen or not a plain number type.
    """
    for name, entry in entries.items():
        if name not in wanted:
            raise ConversionError(
                f"{origin}: the weight {name} has no place in a {backbone} decoder.",
                "Its config.json does not describe these weights; fetch an intact copy.",
            )
        if entry.shape != wanted[name]:
            raise ConversionError(
                f"{origin}: the weight {name} has the shape {list(entry.shape)}; the "
                f"configuration asks for {list(wanted[name])}.",
                "Fetch an intact copy.",
            )
        if entry.dtype not in PLAIN:
            raise ConversionError(
                f"{origin}: the weight {name} is {str(entry.dtype).removeprefix('torch.')}, a "
                "quantized type.",
                "Convert the unquantized checkpoint.",
            )
    missing = [name for name in wanted if name not in entries and name not in may_lack]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConversionError(
            f"{origin}: the weight {missing[0]}{more} is missing.", "Fetch an intact copy."
        )


def exact_type(entries: Mapping[str, Entry], used: list[str]) -> torch.dtype:
    """The narrowest type that holds all the weights exactly."""
    exact = entries[used[0]].dtype
    for name in used[1:]:
        exact = torch.promote_types(exact, entries[name].dtype)
    return exact


def finite_as(values: Tensor, dtype: torch.dtype, name: str, origin: str) -> Tensor:
    """Values of a weight in another type.

    Args:
        values: any part of the weight.
        dtype: the type.
        name: of the weight.
        origin: name of its source for error messages.

    Raises:
        ConversionError: one of them is not finite there.
    """
    found = values.to(dtype)
    if found.numel() and not all(map(torch.isfinite, torch.aminmax(found))):
        kind = str(dtype).removeprefix("torch.")
        raise ConversionError(
            f"{origin}: the weight {name} holds a value that is not finite as {kind}.",
            "Fetch an intact copy, or choose a wider type with --dtype.",
        )
    return found
