"""Mistral: its layers may have a window. Its GGUF files are of the architecture llama."""

from __future__ import annotations

from typing import Any

from allmem_exporters.model.families.family import Family


def _options(config: Any) -> dict[str, Any]:
    return {"trained_window": config.sliding_window}


FAMILY = Family("mistral", "Mistral", fields=frozenset({"sliding_window"}), options=_options)
