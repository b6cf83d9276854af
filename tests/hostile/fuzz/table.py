"""All formats that come from outside, by name: one line each; the module holds its ``FORMAT``."""

from __future__ import annotations

import importlib

from hostile.fuzz.format import Format

# In an order in which those that need PyTorch come last. The operators' inputs are no file:
# tests/hostile/operator_nodes.py spoils them.
TABLE = {
    "session": "hostile.fuzz.formats.session",
    "passages": "hostile.fuzz.formats.passages",
    "manifest": "hostile.fuzz.formats.manifest",
    "graph": "hostile.fuzz.formats.graph",
    "loading": "hostile.fuzz.formats.loading",
    "tokenizer": "hostile.fuzz.formats.tokenizer",
    "template": "hostile.fuzz.formats.template",
    "generation": "hostile.fuzz.formats.generation",
    "prepared": "hostile.fuzz.formats.prepared",
    "document": "hostile.fuzz.formats.document",
    "office": "hostile.fuzz.formats.office",
    "gguf": "hostile.fuzz.formats.gguf",
    "pretrained": "hostile.fuzz.formats.pretrained",
    "exported": "hostile.fuzz.formats.exported",
    "checkpoint": "hostile.fuzz.formats.checkpoint",
    "adapter": "hostile.fuzz.formats.adapter",
    "shards": "hostile.fuzz.formats.shards",
    "heads": "hostile.fuzz.formats.heads",
    "recipes": "hostile.fuzz.formats.recipes",
    "families": "hostile.fuzz.formats.families",
    "decoders": "hostile.fuzz.formats.decoders",
    "local": "hostile.fuzz.formats.local",
}


def format_named(name: str) -> Format:
    """A format of the table."""
    found = importlib.import_module(TABLE[name]).FORMAT
    assert isinstance(found, Format) and found.name == name
    return found
