"""Helium: Llama whose neighboring coordinates rotate together."""

from __future__ import annotations

from allmem_exporters.model.families.family import Family

FAMILY = Family(
    "helium",
    "Helium",
    output_bias=False,
    mlp_bias=True,
    pairs=True,
    fields=frozenset({"mlp_bias"}),
)
