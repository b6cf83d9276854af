"""Files that are as large as they say, and larger than any of their kind, are not read."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from checkpoints import write_folder, write_gguf
from hostile.fuzz.formats._gguf_parts import Field, put_together, taken_apart

from allmem_exporters.errors import ConversionError
from allmem_exporters.make import make
from allmem_exporters.model.memory_options import MemoryOptions
from allmem_exporters.sources import open_source
from allmem_runtime.strict_json import MOST_BYTES

MEMORY = MemoryOptions(window=32, sinks=4, chunk=16, mem_width=16)


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("config.json", MOST_BYTES, "larger than 33,554,432 bytes"),
        ("tokenizer_config.json", MOST_BYTES, "larger than 33,554,432 bytes"),
        ("generation_config.json", MOST_BYTES, "larger than 33,554,432 bytes"),
        ("chat_template.jinja", 1 << 20, "larger than 1,048,576 bytes"),
    ],
)
def test_text_larger_than_any_is_refused_by_name(
    tmp_path: Path, name: str, size: int, said: str
) -> None:
    write_folder(tmp_path / "source")
    with (tmp_path / "source" / name).open("ab") as file:
        file.truncate(size + 1)
    with pytest.raises(ConversionError, match=rf"{name} .*{said}"):
        make(tmp_path / "source", tmp_path / "out", MEMORY)


def test_card_is_read_no_further_than_it_matters(tmp_path: Path) -> None:
    write_folder(tmp_path / "source")
    card = tmp_path / "source" / "README.md"
    with card.open("ab") as file:
        file.truncate(1 << 40)  # which takes no room on the disk
    assert open_source(str(tmp_path / "source")).provenance["licence"] == "apache-2.0"


def test_header_of_weights_larger_than_any_is_refused_by_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "source")
    file = tmp_path / "source" / "model.safetensors"
    with file.open("wb") as weights:
        weights.write((MOST_BYTES + 1).to_bytes(8, "little"))
        weights.truncate(2 * MOST_BYTES)
    with pytest.raises(ConversionError, match="at most 33,554,432 are read"):
        open_source(str(tmp_path / "source"))


def test_lists_of_a_gguf_longer_than_any_are_refused_before_they_are_read(tmp_path: Path) -> None:
    """A byte of the file would become eight of memory."""
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    parts = taken_apart(file.read_bytes())
    half = 1 << 23
    for key in (b"one", b"other", b"third"):
        listed = struct.pack("<IQ", 0, half) + b"\0" * half
        parts.fields.append(Field(key, 9, listed))
    file.write_bytes(put_together(parts))
    with pytest.raises(ConversionError, match="its lists have more than 16,777,216 values"):
        open_source(str(file))
