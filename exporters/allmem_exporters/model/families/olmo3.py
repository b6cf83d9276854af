"""OLMo 3: OLMo 2 with local layers, which have a rope of their own."""

from __future__ import annotations

from allmem_exporters.model.families.family import Family

FAMILY = Family(
    "olmo3", "OLMo 3", norms="behind", whole_norms=True, fields=frozenset({"sliding_window"})
)
