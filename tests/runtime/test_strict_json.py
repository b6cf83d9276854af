"""JSON and TOML of others: what readers could take for different things is refused by a reason."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from allmem_runtime.errors import MAX_MESSAGE, AllMemError
from allmem_runtime.strict_json import (
    is_number,
    is_whole,
    parse_json,
    parse_object,
    read_object,
)
from allmem_runtime.strict_toml import read_toml


@pytest.mark.parametrize(
    "value", [{}, {"a": [1, 2.5, None, True, "ü🙂"]}, {"limit": int(1e30)}, {"a": {"b": [[]]}}]
)
def test_what_json_can_say_plainly_is_read(value: object) -> None:
    assert parse_object(json.dumps(value)) == value
    assert parse_object(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param('{"a":1,"a":1}', "the key 'a' is there twice", id="key twice"),
        pytest.param('{"b":[{"a":1,"a":1}]}', "the key 'a' is there twice", id="key twice inside"),
        pytest.param("[NaN]", "NaN is not a number", id="not a number"),
        pytest.param("-Infinity", "Infinity is not a number", id="infinity"),
        pytest.param("[1e999]", "1e999 is too large", id="overflow"),
        pytest.param("1" + "0" * 100, "a number of 101 digits", id="long number"),
        pytest.param('["\\ud800"]', "half a character", id="half a character"),
        pytest.param('{"\\udc00":1}', "half a character", id="half a character as a key"),
        pytest.param("[" * 100 + "]" * 100, "nested too deeply", id="deep"),
        pytest.param('{"a":' * 100 + "1" + "}" * 100, "nested too deeply", id="deep objects"),
        pytest.param("[" * 100_000, "nested too deeply", id="deeper than Python goes"),
        pytest.param(b"\xff", r"not UTF-8 \(byte 0\)", id="not UTF-8"),
        pytest.param("", "Expecting value", id="empty"),
    ],
)
def test_anything_ambiguous_or_endless_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_what_is_no_object_is_named() -> None:
    with pytest.raises(ValueError, match="it holds a list, not an object"):
        parse_object("[]")


def test_long_list_is_not_deep() -> None:
    assert len(parse_json(json.dumps([[0]] * 1000))) == 1000


def test_reading_reserves_no_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    tracemalloc.start()
    try:
        assert read_object(path, most=1 << 30) == {}
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(ValueError, match="larger than 1 bytes"):
        read_object(path, most=1)


def test_truth_is_no_number() -> None:
    assert is_whole(1, 0, 1) and not is_whole(True, 0, 1) and not is_whole(1.0, 0, 1)
    assert is_number(0.5, 0, 1) and is_number(1, 0, 1) and not is_number(True, 0, 1)
    assert not is_number("1", 0, 1) and not is_number(10**400, 0, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a = " + "[" * 5000, "nested too deeply"),
        ("a = nan", "nan is not a finite"),
        ("a = 1e999", "not a finite"),
        ("a = [" + "9" * 40 + "]", "more than 64 bits"),
        ("a = 1\na = 2", "overwrite"),
        ("a = '" + "x" * (1 << 20) + "'", "larger than 1,048,576 bytes"),
    ],
)
def test_toml_has_the_same_bounds(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_toml(path)


def test_error_that_quotes_a_whole_file_stays_a_line() -> None:
    error = AllMemError(f"a.json: x is {'y' * 100_000}; allowed: z.", "Look at it.")
    assert len(error.message) < MAX_MESSAGE + 10
    assert error.message.startswith("a.json: x is y") and error.message.endswith("allowed: z.")
    assert str(error).endswith("Look at it.")
