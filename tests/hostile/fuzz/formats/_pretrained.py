"""Converting a source as `allmem convert` does, quietly."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest.mock import patch

import transformers

from allmem_exporters import tokenizer_conversion
from allmem_exporters.convert.conversion import convert

transformers.logging.set_verbosity(transformers.logging.CRITICAL)


def convert_into(source: Path, out: Path) -> None:
    """Convert a source into a folder that is not there before."""
    shutil.rmtree(out, ignore_errors=True)
    # A process of its own for each tokenizer would take seconds; this one is bounded itself.
    with patch.object(tokenizer_conversion, "_apart", tokenizer_conversion._failure):
        convert(source, out, window=32, sinks=4, chunk=16, mem_width=16)
