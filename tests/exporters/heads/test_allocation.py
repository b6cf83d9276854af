"""A budget of bytes becomes windows: the best for what they take, never more than there is."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest

from allmem_exporters.errors import ExportError
from allmem_exporters.heads.allocation import Rows, allocate
from allmem_exporters.heads.head_table import HeadTable

WINDOWS = (8, 16, 32)
ROWS = Rows(bytes=10, sinks=2, most=32)


def table(worth: list[list[list[float]]], windows: tuple[int, ...] = WINDOWS) -> HeadTable:
    rows = tuple(tuple(tuple(head) for head in layer) for layer in worth)
    return HeadTable("d" * 64, windows, 2, rows, {"copy": 1.0}, {"copy": 1})


def taken(windows: list[list[int]], rows: Rows = ROWS) -> int:
    return sum((w + rows.sinks) * rows.bytes for layer in windows for w in layer)


def test_what_is_worth_most_for_its_bytes_is_given_first() -> None:
    heads = table([[[0.1, 0.1], [0.5, 0.0]], [[0.0, 0.0], [0.0, 0.9]]])
    least = taken([[8, 8], [8, 8]])
    assert allocate(heads, least, ROWS, 4) == [[8, 8], [8, 8]]
    assert allocate(heads, least + 80, ROWS, 4) == [[8, 16], [8, 8]]
    assert allocate(heads, least + 320, ROWS, 4) == [[8, 16], [8, 32]]
    assert allocate(heads, least + 560, ROWS, 4) == [[32, 16], [8, 32]]


def test_what_no_longer_fits_is_given_in_part() -> None:
    heads = table([[[0.1, 0.1], [0.5, 0.0]]])
    assert allocate(heads, taken([[8, 8]]) + 55, ROWS, 4) == [[8, 13]]
    assert allocate(heads, taken([[8, 16]]) + 70, ROWS, 4) == [[15, 16]]


def test_where_nothing_is_worth_more_the_shortest_windows_grow_alike() -> None:
    heads = table([[[-0.5, 0.0], [0.0, 0.0]], [[0.0, 0.9], [0.0, 0.0]]])
    least = taken([[8, 8], [32, 8]])
    assert allocate(heads, least, ROWS, 4) == [[8, 8], [32, 8]]
    assert allocate(heads, least + 3 * 40 + 29, ROWS, 4) == [[12, 12], [32, 12]]
    assert allocate(heads, 10**6, ROWS, 4) == [[32, 32], [32, 32]]


def test_the_chunk_is_the_least() -> None:
    heads = table([[[-0.5, 0.0]]])
    assert allocate(heads, taken([[20]]), ROWS, 20) == [[20]]


def test_beyond_what_was_measured_a_head_goes_on_up_to_what_the_model_was_trained_for() -> None:
    heads = table([[[0.1, 0.5], [0.0, 0.0]]])
    rows = Rows(bytes=10, sinks=2, most=100)
    assert allocate(heads, taken([[100, 8]]), rows, 4) == [[100, 8]]
    assert allocate(heads, taken([[64, 8]]), rows, 4) == [[64, 8]]
    assert allocate(heads, 10**6, rows, 4) == [[100, 100]]


def test_a_budget_below_the_shortest_windows_says_the_least_that_works() -> None:
    heads, rows = table([[[0.1, 0.1], [0.1, 0.1]]]), dataclasses.replace(ROWS, beside=1000)
    with pytest.raises(ExportError, match="of 500 B is too small.* 2 heads .* 1.2 KiB") as refusal:
        allocate(heads, 500, rows, 4)
    (least,) = map(int, re.findall("--state-budget ([0-9]+)", refusal.value.hint))
    assert allocate(heads, least, rows, 4) == [[8, 8]]
    with pytest.raises(ExportError, match="too small"):
        allocate(heads, least - 1, rows, 4)


def test_no_other_windows_of_as_many_bytes_are_worth_more() -> None:
    # Steps of equal size, each of a head worth less than the one before: none is left out for size.
    sizes, rows = (8, 16, 24), Rows(bytes=10, sinks=2, most=24)
    random = Random(0)
    for _ in range(40):
        worth = [
            [sorted((random.random(), random.random()), reverse=True) for _ in range(2)]
            for _ in range(2)
        ]
        budget = taken([[8, 8], [8, 8]]) + 80 * random.randrange(0, 10)

        def value(windows: list[list[int]], worth: list[list[list[float]]] = worth) -> float:
            return sum(
                sum(worth[i][j][: sizes.index(window)])
                for i, layer in enumerate(windows)
                for j, window in enumerate(layer)
            )

        found = allocate(table(worth, sizes), budget, rows, 4)
        choices = ([[a, b], [c, d]] for a, b, c, d in itertools.product(sizes, repeat=4))
        best = max(value(windows) for windows in choices if taken(windows) <= budget)
        assert taken(found) <= budget
        assert value(found) == pytest.approx(best)


def test_the_budget_is_kept_and_spent() -> None:
    random = Random(1)
    for _ in range(60):
        heads = table([[[random.random(), random.random()] for _ in range(2)] for _ in range(2)])
        budget = taken([[8, 8], [8, 8]]) + random.randrange(0, 900)
        found = taken(allocate(heads, budget, ROWS, 4))
        assert budget - 4 * ROWS.bytes < found <= budget


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    heads = table([[[0.25, -0.5]], [[1.0, 0.0]]])
    heads.save(tmp_path / "heads.json")
    assert HeadTable.read(tmp_path / "heads.json") == heads


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "other"}, "does not say"),
        ({"version": 2}, "version is 2"),
        ({"windows": [8]}, "two or more ascending"),
        ({"windows": [16, 8, 32]}, "ascending"),
        ({"windows": [8, 16, 1 << 30]}, "ascending"),
        ({"sinks": -1}, "sinks is -1"),
        ({"worth": [[[0.1]]]}, "a number for each further window"),
        ({"worth": [[[0.1, float("nan")]]]}, "NaN is not a number"),
        ({"worth": [[[0.1, True]]]}, "a number for each further window"),
        ({"worth": [["ab"]]}, "a number for each further window"),
        ({"worth": []}, "a list of heads for each layer"),
        ({"worth": [{"a": 1}]}, "a list of heads for each layer"),
        ({"divergence": [1.0]}, "divergence must have a number for each kind"),
        ({"sequences": {"copy": "3"}}, "sequences must have a number for each kind"),
        ({"worth": [[[0.1, 0.1]], []]}, "different numbers of heads"),
        ({"worth": 7}, "no head table"),
        ({"decoder": None}, "no digest"),
    ],
)
def test_what_is_no_head_table_is_refused_by_name(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "heads.json"
    table([[[0.25, -0.5]]]).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ExportError, match=says) as refusal:
        HeadTable.read(path)
    assert "heads.json" in refusal.value.message


def test_a_table_that_is_missing_or_no_json_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="none.json cannot be read"):
        HeadTable.read(tmp_path / "none.json")
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(ExportError, match="a.json is no head table"):
        HeadTable.read(tmp_path / "a.json")
