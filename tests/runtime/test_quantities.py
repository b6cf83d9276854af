"""Numbers of tokens, bytes and seconds are read and written as people do."""

from __future__ import annotations

import pytest

from allmem_runtime import UsageError
from allmem_runtime.quantities import (
    counted,
    format_bytes,
    format_duration,
    format_tokens,
    parse_bytes,
    parse_token_list,
    parse_tokens,
)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", [0]), ("8k,2k,2048", [2048, 8192]), ("1M", [1 << 20]), ("7, 1K", [7, 1024]),
     ("4k,2000,2k,4096", [2000, 2048, 4096])],
)  # fmt: skip
def test_numbers_of_tokens_are_read_as_people_write_them(text: str, numbers: list[int]) -> None:
    assert parse_token_list(text, 0) == numbers


@pytest.mark.parametrize("number", [0, 7, 2048, 8192, 1000, 2000, 1 << 20, 3 << 20])
def test_what_is_written_is_read_again(number: int) -> None:
    assert parse_tokens(format_tokens(number), 0) == number


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (2000, "2000"), (2048, "2k"), (1 << 20, "1M")]
)
def test_numbers_of_tokens_are_written_short(number: int, text: str) -> None:
    assert format_tokens(number) == text


@pytest.mark.parametrize(
    "text",
    ["", "k", "1,,2", "1.5k", "2.5k", "-1", "9999999999", "9999999k", "١k", "1G"],
)
def test_what_is_no_number_of_tokens_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no number of tokens"):
        parse_token_list(text, 0)


def test_the_least_that_can_be_meant_is_named() -> None:
    with pytest.raises(UsageError, match="'0' is no number of tokens") as caught:
        parse_token_list("8k,0")
    assert "Give 1 or more" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        parse_tokens("8k", most=4096)
    assert "Give 1 to 4k" in caught.value.hint


@pytest.mark.parametrize("text", ["4GiB", "4G", "4gb", " 4096 MiB ", "4294967296", "4294967296B"])
def test_sizes_are_read_as_people_write_them(text: str) -> None:
    assert parse_bytes(text) == 4 << 30


def test_what_is_no_size_is_refused_by_its_name() -> None:
    with pytest.raises(UsageError, match="The limit 'much' is no size") as caught:
        parse_bytes("much", "The limit")
    assert "4GiB" in caught.value.hint


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (60, "1m00s"), (125, "2m05s"), (12000, "3h20m"),
     (350000, "4d01h"), (-1, "0s")],
)  # fmt: skip
def test_times_are_short(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (118 << 20, "118 MiB"),
     (107 << 30, "107 GiB"), (14 << 30, "14.0 GiB"), (5 << 50, "5,120 TiB")],
)  # fmt: skip
def test_sizes_are_short(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_one_thing_is_not_told_as_several() -> None:
    told = [counted(count, "token") for count in (0, 1, 2048)]
    assert told == ["0 tokens", "1 token", "2,048 tokens"]
    assert [counted(count, "entry", "entries") for count in (1, 2)] == ["1 entry", "2 entries"]
