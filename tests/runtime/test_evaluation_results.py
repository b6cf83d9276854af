"""Rows, lengths, means and the file of results."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from allmem_exporters.onnx.export import export
from allmem_runtime import UsageError
from allmem_runtime.evaluation.numbers import Mean, average, mean
from allmem_runtime.evaluation.results import Results, key_of
from allmem_runtime.evaluation.rows import (
    Row,
    grouped,
    is_row,
    parse_row,
    parse_rows,
    window_notices,
    write_rows,
)
from allmem_runtime.evaluation.tables import Table
from allmem_runtime.plotting import check_plot

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
        '{"format": "allmem-eval-1", "kind": "begin"}',
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
    lines = ["t", "         2k", "a  50.0 ± ?", "b         –", "samples in each cell: 1"]
    assert list(table.lines()) == lines
    assert json.loads(json.dumps(table.as_json()))["rows"]["b"] == {"2k": None}


def test_a_table_with_uneven_samples_says_how_many_each_cell_has() -> None:
    cells = {("a", "2k"): Mean(50.0, 5.0, 12), ("a", "4k"): Mean(40.0, 5.0, 3)}
    shown = "\n".join(Table("t", ["a"], ["2k", "4k"], cells=cells).lines())
    assert "50.0 ± 5.0 (12)" in shown and "40.0 ± 5.0 (3)" in shown


@pytest.mark.parametrize("name", ["x.pgn", "x", "x.json"])
def test_a_picture_of_no_known_kind_is_refused_before_the_work(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no kind of picture"):
        check_plot(tmp_path / name)


def test_rows_of_one_decoder_may_differ_in_window_and_memory(
    tiny_checkpoint_dir: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    export(tiny_checkpoint_dir, tmp_path / "w", window=40, memory="disabled", check=False)
    assert len(grouped(parse_rows([f"a={tiny_model_dir}", f"b={tmp_path / 'w'}"]))) == 2


def test_rows_of_different_decoders_are_refused_by_name_unless_it_is_wanted(
    tiny_model_dir: Path, other_model_dir: Path
) -> None:
    rows = parse_rows([f"one={tiny_model_dir}", f"two={other_model_dir}"])
    with pytest.raises(UsageError, match="'one' and 'two' have decoders with other weights"):
        grouped(rows)
    told: list[str] = []
    assert len(grouped(rows, warn=told.append)) == 2
    assert len(told) == 1 and "'one' and 'two'" in told[0]


def test_rows_whose_weights_are_stored_otherwise_are_refused(
    tiny_checkpoint_dir: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    export(tiny_checkpoint_dir, tmp_path / "half", weights="float16", check=False)
    with pytest.raises(UsageError, match=r"differ in their weights \(float32 and float16\)"):
        grouped(parse_rows([f"a={tiny_model_dir}", f"b={tmp_path / 'half'}"]))


def test_models_of_before_there_was_a_digest_cannot_be_compared_but_are_not_called_different(
    make_toy: Callable[..., Path],
) -> None:
    a, b, c = make_toy("a"), make_toy("b"), make_toy("c", salt=5)
    assert len(grouped(parse_rows([f"a={a}", f"b={b}"]))) == 2  # the same file of weights
    with pytest.raises(UsageError, match="cannot be told"):
        grouped(parse_rows([f"a={a}", f"c={c}"]))


def test_a_folder_of_rows_stands_for_the_rows_in_it(tmp_path: Path) -> None:
    rows = [
        Row("full attention", tmp_path / "full"),
        Row("reset", tmp_path / "on", reset=True),
    ]
    write_rows(tmp_path, rows)
    assert is_row(str(tmp_path)) and not is_row(str(tmp_path / "full"))
    assert parse_rows([str(tmp_path), "a=b"]) == [*rows, Row("a", Path("b"))]
    (tmp_path / "rows.json").write_text("{}")
    with pytest.raises(UsageError, match="no list of rows"):
        parse_rows([str(tmp_path)])


def test_a_window_that_holds_whole_prompts_is_told(toy_dir: Path) -> None:
    groups = grouped(parse_rows([f"full={toy_dir}"]))  # a window of 64 and 2 sinks
    assert "hold every prompt whole" in "".join(window_notices(groups, {"a": 66, "b": 10}))
    assert "prompts of a whole" in "".join(window_notices(groups, {"a": 66, "b": 67}))
    assert "not full attention" in "".join(window_notices(groups, {"b": 67}))
    assert list(window_notices(grouped(parse_rows([f"w={toy_dir}"])), {"b": 67})) == []
