"""The ways that are compared: as many bytes at most, and the types and slots asked for."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from allmem_exporters.heads.head_table import HeadTable
from benchmarks.windows.elements import Int4, Int8
from benchmarks.windows.rings import Ring
from benchmarks.windows.ways import ROWS, Choice, Giver, Way, ways_of

CONFIG = SimpleNamespace(
    max_position_embeddings=2048, head_dim=64, num_hidden_layers=2, num_key_value_heads=2
)
WORTH = (((0.5, 0.25, 0.125), (0.0, 0.0, 0.0)), ((0.4, 0.4, 0.4), (0.01, 0.01, 0.01)))
TABLE = HeadTable("0" * 64, (64, 128, 256, 512), 16, WORTH, {"text": 1.0}, {"text": 1})


def giver(longest: int | None = None) -> Giver:
    return Giver(TABLE, cast(Any, CONFIG), Int4(), longest)


def windows(way: Way) -> list[list[int]]:
    return [[ring.rows for ring in layer] for layer in way.rings]


def test_no_way_takes_more_than_its_window_everywhere() -> None:
    choices = [Choice("surprise", 0.5), Choice("learned", 1.0)]
    ways = ways_of({"a": giver()}, [100, 200], ROWS[1:], choices)
    assert len(ways) == 1 + 2 * (1 + 2 + 1 + 4 + 4)
    for name, way in ways.items():
        assert way.bytes(16, 64) <= 4 * (int(name.split()[0]) + 16) * 256


@pytest.mark.parametrize("rows", ["int8", "int4"])
def test_rows_of_fewer_bits_are_more_rows_in_as_many_bytes(rows: str) -> None:
    budget = giver().uniform(300).bytes(16, 64)
    more, fewer = giver().by_head(budget, rows), giver().by_head(budget)
    assert sum(map(sum, windows(more))) > 1.5 * sum(map(sum, windows(fewer)))
    assert {ring.element.name for layer in more.rings for ring in layer} == {rows}


def test_heads_with_the_shortest_window_have_the_first_type_and_others_the_second() -> None:
    three_long = 3 * Ring(Int4(), 512).bytes(16, 64) + Ring(Int8(), 64).bytes(16, 64)
    way = giver(longest=512).by_head(three_long, "int8+int4")
    assert windows(way) == [[512, 64], [512, 512]]
    assert [[ring.element.name for ring in layer] for layer in way.rings] == [
        ["int4", "int8"],
        ["int4", "int4"],
    ]


def test_no_head_has_more_than_the_longest() -> None:
    assert windows(giver(longest=256).by_head(10**9)) == [[256, 256], [256, 256]]
    assert windows(giver().by_head(10**9)) == [[2032, 2032], [2032, 2032]]


def test_a_share_of_what_a_head_has_beyond_the_shortest_window_is_chosen() -> None:
    three_long = (3 * (256 + 16) + 64 + 16) * 256 + 3 * 256 * 2
    way = giver(longest=256).by_head(three_long, choice=Choice("learned", 0.5))
    (long, short), _ = way.rings
    assert (long.latest, long.slots) == (64 + 96, 96)
    assert (short.latest, short.slots) == (64, 0)
    assert windows(way.latest()) == windows(way)
    assert all(ring.slots == 0 for layer in way.latest().rings for ring in layer)


def test_several_tables_give_windows_under_their_names() -> None:
    names = list(ways_of({"a": giver(), "b": giver()}, [100]))
    assert names == ["64 everywhere", "100 everywhere", "100 by head by a", "100 by head by b"]


def test_scores_are_paid_for_out_of_the_same_bytes() -> None:
    # One head of 128 rows and three of 64, 16 sinks each.
    budget = (128 + 3 * 64 + 4 * 16) * 256
    choice = Choice("learned", 0.5)
    assert windows(giver().by_head(budget)) == [[128, 64], [64, 64]]
    assert windows(giver().by_head(budget + 255, choice=choice)) == [[127, 64], [64, 64]]
    assert windows(giver().by_head(budget + 256, choice=choice)) == [[128, 64], [64, 64]]
