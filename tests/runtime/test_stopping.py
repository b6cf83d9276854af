"""A stop string is found wherever the stream is cut, and no part of it is ever shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allmem_runtime.generation.stopping import StopScanner


def shown(pieces: list[str], stop: list[str]) -> tuple[str, bool]:
    scanner = StopScanner(stop)
    text = "".join(scanner.push(piece) for piece in pieces)
    return text + scanner.finish(), scanner.stopped


@pytest.mark.parametrize("cut", range(len("The end.\nUser: more") + 1))
def test_a_stop_string_is_found_wherever_it_is_cut(cut: int) -> None:
    text = "The end.\nUser: more"
    assert shown([text[:cut], text[cut:]], ["\nUser:"]) == ("The end.", True)


@given(
    st.text("ab", max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 12), max_size=6),
)
def test_the_cuts_of_the_stream_change_nothing(text: str, stop: list[str], cuts: list[int]) -> None:
    edges = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
    pieces = [text[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    assert shown(pieces, stop) == shown([text], stop)
    assert shown(list(text), stop) == shown([text], stop)
    result, stopped = shown([text], stop)
    assert text.startswith(result)
    assert stopped == any(s in text for s in stop)
    assert not any(s in result for s in stop)


def test_text_that_only_began_like_a_stop_string_is_shown_in_the_end() -> None:
    scanner = StopScanner(["<stop>"])
    assert scanner.push("a <st") == "a "
    assert scanner.push("range>") == "<strange>"
    assert scanner.push("<sto") == ""
    assert scanner.finish() == "<sto"
    assert not scanner.stopped


def test_nothing_is_shown_after_the_stop() -> None:
    scanner = StopScanner(["."])
    assert scanner.push("a.b") == "a"
    assert scanner.push("c") + scanner.finish() == ""


def test_without_stop_strings_everything_is_shown_at_once() -> None:
    assert StopScanner([]).push("any text") == "any text"
