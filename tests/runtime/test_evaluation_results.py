"""Rows, lengths, means and the file of results."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from allmem_runtime import UsageError
from allmem_runtime.evaluation.lengths import length_name, parse_lengths
from allmem_runtime.evaluation.numbers import Mean, average, mean
from allmem_runtime.evaluation.results import Results, key_of
from allmem_runtime.evaluation.rows import grouped, parse_row, parse_rows
from allmem_runtime.evaluation.tables import Table

RECORD = {
    "row": "a", "model": "d", "reset": False, "task": "t", "column": "2k", "sample": 0,
    "question": 0, "prompt": "p", "score": 100.0,
}  # fmt: skip


def test_a_row_is_a_name_and_a_folder_and_perhaps_a_reset() -> None:
    row = parse_row("blank memory=out/model:reset")
    assert (row.name, row.folder, row.reset) == ("blank memory", Path("out/model"), True)
    assert not parse_row("a=out").reset


@pytest.mark.parametrize("text", ["out", "=out", "a=", "a=:reset", "a\x07=out"])
def test_what_is_no_row_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_row(text)


def test_a_row_name_is_given_once() -> None:
    with pytest.raises(UsageError, match="twice"):
        parse_rows(["a=x", "a=y"])


def test_rows_of_one_folder_share_their_reading(toy_dir: Path) -> None:
    rows = parse_rows([f"a={toy_dir}", f"b={toy_dir}:reset", f"c={toy_dir}/../{toy_dir.name}"])
    assert [len(group.rows) for group in grouped(rows)] == [3]


def test_rows_with_different_tokenizers_are_not_compared(
    toy_dir: Path, tiny_model_dir: Path
) -> None:
    with pytest.raises(UsageError, match="different tokenizers"):
        grouped(parse_rows([f"a={toy_dir}", f"b={tiny_model_dir}"]))


def test_lengths_are_read_and_written_as_people_do() -> None:
    assert parse_lengths("4k,2000,2k,4096") == [2000, 2048, 4096]
    assert [length_name(n) for n in (0, 2000, 2048)] == ["0", "2000", "2k"]
    for wrong in ("", "k", "2.5k", "0", "-1", "9999999k"):
        with pytest.raises(UsageError):
            parse_lengths(wrong)


def test_standard_error_is_that_of_the_textbook() -> None:
    found = mean([1.0, 2.0, 4.0, 5.0])
    assert found is not None and found.error is not None
    # s = sqrt(10 / 3), error = s / sqrt(4)
    assert found.value == 3.0
    assert found.error == pytest.approx(math.sqrt(10 / 3) / 2)


def test_weights_count_like_repeated_tokens() -> None:
    found = mean([1.0, 4.0], [3.0, 1.0])
    assert found is not None
    assert found.value == pytest.approx((1 + 1 + 1 + 4) / 4)


def test_one_sample_has_no_error_and_none_has_no_mean() -> None:
    assert mean([7.0]) == Mean(7.0, None, 1)
    assert mean([]) is None
    assert average([Mean(1.0, 0.3, 2), Mean(3.0, 0.4, 2)]) == Mean(2.0, 0.25, 4)
    assert average([Mean(1.0, 0.3, 2), None]) is None


def test_a_result_is_found_again_after_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    Results(path).add(RECORD)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind": "result", "row": "b", "mo')
    again = Results(path)
    assert again.found == 1
    assert again.get(key_of(RECORD)) == RECORD
    assert path.read_bytes() == whole
    again.add({**RECORD, "sample": 1})
    again.summary({"evaluation": "t", "tables": []})
    assert Results(path).found == 2


@pytest.mark.parametrize("change", [{"model": "e"}, {"prompt": "q"}, {"reset": True}], ids=str)
def test_a_result_of_something_else_is_not_reused(tmp_path: Path, change: dict[str, str]) -> None:
    path = tmp_path / "results.jsonl"
    Results(path).add(RECORD)
    assert Results(path).get(key_of({**RECORD, **change})) is None


@pytest.mark.parametrize(
    "text",
    [
        "hello\n",
        "hello",
        "hello\nthere",
        '{"a": 1}\n',
        '{"a": 1}',
        '{"kind": "begin", "format": "x"}\n',
    ],
)
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(UsageError, match="line 1"):
        Results(path)
    assert path.read_text() == text


def test_a_kill_in_the_middle_of_the_first_line_is_gone_on_from(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    Results(path)
    path.write_bytes(path.read_bytes()[:20])
    Results(path).add(RECORD)
    assert Results(path).found == 1


def test_a_table_shows_what_was_not_measured_as_a_gap() -> None:
    table = Table("t", ["a", "b"], ["2k"], cells={("a", "2k"): Mean(50.0, None, 1)})
    assert list(table.lines()) == ["t", "         2k", "a  50.0 ± ?", "b         –"]
    assert json.loads(json.dumps(table.as_json()))["rows"]["b"] == {"2k": None}
