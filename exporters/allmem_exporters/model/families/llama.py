"""Llama, and what is built like it: Llama 1 to 3, SmolLM2, TinyLlama and many others."""

from __future__ import annotations

from allmem_exporters.model.families.family import Family

FAMILY = Family("llama", "Llama", mlp_bias=True, fields=frozenset({"mlp_bias"}))
