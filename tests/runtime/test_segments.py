"""Decoding and cutting depend on the text alone, and every source byte is accounted for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allmem_runtime.text.segments import SEGMENT_CHARACTERS, Segment, Segmenter, Utf8Reader

MULTILINGUAL = "Zürich, Ελλάδα, 東京, 👩‍🚀 and \u0301combining. "

damaged = st.lists(
    st.one_of(
        st.binary(max_size=6),
        st.sampled_from([b"\xef\xbb\xbf", b"\xf0\x9f", b"\xed\xa0\x80", b"\xc0\x80", b"\n", b" "]),
        st.text(max_size=8).map(lambda t: t.encode("utf-8", "replace")),
        st.integers(1, 1500).map(lambda n: b"word " * n),
        st.integers(1, 3000).map(lambda n: "\u20ac".encode() * n),
    ),
    max_size=8,
).map(b"".join)


def read(data: bytes, cuts: list[int], start: int = 0) -> tuple[list[Segment], int]:
    """Feed ``data`` cut at these places; return the segments and the count of replacements."""
    reader = Utf8Reader(start)
    segmenter = Segmenter(reader)
    segments: list[Segment] = []
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    for first, last in zip(edges, edges[1:], strict=False):
        segments += segmenter.push(reader.push(data[first:last]))
    segments += segmenter.push(reader.finish())
    return segments + segmenter.flush(), reader.replaced


@given(damaged, st.lists(st.integers(0, 1 << 20), max_size=10))
def test_segments_do_not_depend_on_how_the_bytes_were_cut(data: bytes, cuts: list[int]) -> None:
    assert read(data, cuts) == read(data, [])


@given(damaged)
def test_text_is_what_python_decodes_and_every_byte_is_counted(data: bytes) -> None:
    segments, _ = read(data, [])
    expected = data.decode("utf-8", "replace").removeprefix("\ufeff")
    assert "".join(s.text for s in segments) == expected
    if expected:
        assert segments[-1].end == len(data)


@given(damaged, st.integers(0, 20))
def test_reading_goes_on_at_any_segment_as_if_never_interrupted(data: bytes, index: int) -> None:
    whole, _ = read(data, [])
    if index < len(whole):
        end = whole[index].end
        rest, _ = read(data[end:], [], start=end)
        assert whole[: index + 1] + rest == whole


@pytest.mark.parametrize("size", range(1, 8))
def test_multilingual_bytes_survive_pieces_of_any_size(size: int) -> None:
    data = (MULTILINGUAL * 300).encode()
    segments, replaced = read(data, list(range(0, len(data), size)))
    assert "".join(s.text for s in segments) == MULTILINGUAL * 300
    assert replaced == 0


@pytest.mark.parametrize(
    ("data", "text", "replaced"),
    [
        pytest.param(b"\xef\xbb\xbfa", "a", 0, id="byte order mark"),
        pytest.param(b"a\xef\xbb\xbf", "a\ufeff", 0, id="byte order mark inside"),
        pytest.param(b"\xef\xbb", "\ufffd", 1, id="unfinished byte order mark"),
        pytest.param("für".encode("latin-1"), "f\ufffdr", 1, id="latin-1"),
        pytest.param(b"a\x00b", "a\x00b", 0, id="NUL"),
        pytest.param(b"a\r\nb", "a\r\nb", 0, id="CRLF"),
        pytest.param(b"\xf0\x9f\x98", "\ufffd", 1, id="cut at the end"),
        pytest.param(b"\xed\xa0\x80", "\ufffd\ufffd\ufffd", 3, id="lone surrogate"),
        pytest.param(b"", "", 0, id="nothing"),
    ],
)
def test_invalid_bytes_become_counted_replacements(data: bytes, text: str, replaced: int) -> None:
    segments, count = read(data, list(range(len(data))))
    assert ("".join(s.text for s in segments), count) == (text, replaced)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        pytest.param("a" * 2000 + "\n" + "b c" * 1000, "a" * 2000 + "\n", id="after the line end"),
        pytest.param("a" * 2000 + " " + "b" * 1000, "a" * 2000, id="before the space"),
        pytest.param("a" * 5000, "a" * SEGMENT_CHARACTERS, id="hard"),
        pytest.param(" " + "a" * 5000, " " + "a" * (SEGMENT_CHARACTERS - 1), id="leading space"),
        pytest.param("\n" + "a" * 5000, "\n", id="leading line end"),
        pytest.param(
            "a" * (SEGMENT_CHARACTERS - 1) + "\nb", "a" * (SEGMENT_CHARACTERS - 1) + "\n", id="edge"
        ),
    ],
)
def test_a_segment_is_cut_at_the_best_place(text: str, first: str) -> None:
    segmenter = Segmenter()
    assert (segmenter.push(text) + segmenter.flush())[0].text == first


def test_a_segment_is_never_longer_than_the_bound_nor_empty() -> None:
    segmenter = Segmenter()
    lengths = [len(s.text) for s in segmenter.push("x y\n" * 5000 + "z" * 9000)]
    assert lengths
    assert min(lengths) >= 1
    assert max(lengths) <= SEGMENT_CHARACTERS


def test_text_with_a_lone_surrogate_can_be_encoded() -> None:
    segmenter = Segmenter()
    segmenter.push("a\ud800b")
    assert segmenter.flush() == [Segment("a\ufffdb", 5)]
