"""OLMo 2: norms behind both branches, and of all query heads and all key heads together."""

from __future__ import annotations

from allmem_exporters.model.families.family import Family

FAMILY = Family("olmo2", "OLMo 2", norms="behind", whole_norms=True)
