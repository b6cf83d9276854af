"""The place in a text survives as text; one that cannot be is refused by its key."""

from __future__ import annotations

import dataclasses
import json

import pytest

from allmem_runtime.files.position_metadata import (
    MAX_SYSTEM,
    MAX_UNREAD,
    place_from_metadata,
    place_to_metadata,
)
from allmem_runtime.files.source_metadata import (
    MAX_SOURCES_CHARACTERS,
    sources_from_metadata,
    sources_to_metadata,
)
from allmem_runtime.source_mark import SourceMark
from allmem_runtime.state import Place

PLACE = Place(
    position=12345,
    turn="document",
    pending=[1, 2, 3],
    lead="\n\u2003 ",
    recent=[4, 5],
    seed=99,
    system="Sprich wie ein Pirat.\n",
    source=SourceMark(
        "b.txt",
        "f" * 16,
        offset=777,
        finished=False,
        digest="b" * 64,
        head="a" * 64,
        head_bytes=777,
    ),
    earlier=(
        SourceMark("Größe \udc80.txt", "0" * 16, 90_000, True, "c" * 64, "d" * 64, 1 << 16),
        SourceMark("standard input", offset=5, digest="e" * 64, head="e" * 64, head_bytes=5),
    ),
)


def test_place_survives_as_text() -> None:
    assert place_from_metadata(place_to_metadata(PLACE), 330) == PLACE


@pytest.mark.parametrize("unread", [b"", "halb geles\u00e9n".encode()[:-1], b"[1]", [1, 329]])
def test_what_is_unread_survives_as_what_it_is(unread: bytes | list[int]) -> None:
    place = dataclasses.replace(PLACE, unread=unread)
    metadata = place_to_metadata(place)
    assert ("unread" in metadata) == bool(unread)
    assert place_from_metadata(metadata, 330) == place


def test_a_system_text_that_is_too_long_is_not_kept() -> None:
    kept = dataclasses.replace(PLACE, system="x" * MAX_SYSTEM)
    assert place_from_metadata(place_to_metadata(kept), 330) == kept
    longer = dataclasses.replace(PLACE, system="x" * (MAX_SYSTEM + 1))
    assert place_from_metadata(place_to_metadata(longer), 330).system == ""
    with pytest.raises(ValueError, match="system has more"):
        place_from_metadata({**place_to_metadata(PLACE), "system": longer.system}, 330)


def test_a_text_that_was_given_whole_is_not_kept_for_its_owner() -> None:
    kept = dataclasses.replace(PLACE, unread=b"x" * MAX_UNREAD)
    assert place_from_metadata(place_to_metadata(kept), 330) == kept
    assert "unread" not in place_to_metadata(dataclasses.replace(kept, unread=kept.unread + b"x"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position", "-1"),
        ("position", "1.5"),
        ("position", str(1 << 60)),
        ("position", "١٢"),
        ("position", ""),
        ("turn", "system"),
        ("lead", "\n words"),
        ("lead", " " * 65),
        ("seed", str(1 << 63)),
        ("pending", "[330]"),
        ("pending", "[-1]"),
        ("pending", "[true]"),
        ("pending", "[1.0]"),
        ("pending", "{}"),
        ("pending", "[" * 100_000),
        ("recent", json.dumps([1] * 65)),
        ("unread", "[330]"),
        ("unread", "YQ"),
        ("unread", "Zm9 v"),
        ("unread", "ä"),
        ("source_offset", "x"),
        ("source_finished", "1"),
        ("source_digest", "A" * 64),
        ("source_digest", "ab"),
        ("source_digest_bytes", "-5"),
        ("source_digest_bytes", "1.5"),
        ("source_name", "x" * 256),
        ("source_location", "f" * 64),
        ("sources", "{}"),
        ("sources", "[1]"),
        ("sources", '[{"name": "a"}]'),
        ("sources", "[" * 100_000),
        ("source_read_digest", "b" * 63),
    ],
)
def test_impossible_place_is_refused_by_its_key(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=key):
        place_from_metadata({**place_to_metadata(PLACE), key: value}, 330)


def test_a_file_of_an_earlier_version_does_not_know_the_digest_of_what_was_read() -> None:
    metadata = place_to_metadata(PLACE)
    del metadata["source_read_digest"]
    assert place_from_metadata(metadata, 330).source.digest == ""


OPTIONAL = {"lead", "system", "source_read_digest", "source_name", "source_location", "sources"}


@pytest.mark.parametrize("key", sorted(place_to_metadata(PLACE).keys() - OPTIONAL))
def test_missing_key_is_named(key: str) -> None:
    metadata = place_to_metadata(PLACE)
    del metadata[key]
    with pytest.raises(ValueError, match=f"{key} is missing"):
        place_from_metadata(metadata, 330)


def test_a_file_of_an_earlier_version_knows_its_last_source_without_a_name() -> None:
    metadata = place_to_metadata(PLACE)
    for key in ("source_name", "source_location", "sources"):
        del metadata[key]
    place = place_from_metadata(metadata, 330)
    assert (place.source.name, place.source.offset, place.earlier) == ("", 777, ())


def test_of_more_sources_than_a_header_holds_the_oldest_are_forgotten() -> None:
    mark = SourceMark("n" * 255, "0" * 16, 90_000, True, "c" * 64, "d" * 64, 1 << 16)
    earlier = tuple(dataclasses.replace(mark, offset=number) for number in range(40_000))
    metadata = sources_to_metadata(earlier)
    assert len(metadata["sources"]) <= MAX_SOURCES_CHARACTERS
    kept = sources_from_metadata(metadata)
    assert kept == earlier[-len(kept) :] and 20_000 < len(kept) < 40_000
