"""Work per token: the published table, digit by digit, and the edges of the formulas."""

from __future__ import annotations

import dataclasses
import json

import pytest
from click.testing import CliRunner

from allmem_runtime import flops
from allmem_runtime.cli.info import info
from allmem_runtime.flops import LENGTHS, SHAPES, Shape

QWEN = ("qwen3-0.6b", "qwen3-1.7b")

# Ratio full / AllMem: mixer prefill, model prefill, mixer decode, model decode; two digits.
TABLE = {
    (4096, "4k"): ((0.84, 0.90, 0.89, 0.93), (0.81, 0.92, 0.86, 0.94)),
    (4096, "37k"): ((3.24, 2.63, 6.00, 4.19), (2.62, 1.76, 4.73, 2.55)),
    (4096, "128k"): ((10.55, 8.01, 20.63, 13.51), (8.15, 4.41, 15.81, 7.16)),
    (8192, "37k"): ((2.09, 1.88, 3.67, 2.98), (1.85, 1.48, 3.19, 2.12)),
    (8192, "128k"): ((6.54, 5.52, 12.60, 9.61), (5.57, 3.61, 10.66, 5.96)),
}


def with_window(name: str, window: int) -> Shape:
    return dataclasses.replace(SHAPES[name], window=window)


@pytest.mark.parametrize(("window", "length"), TABLE, ids=lambda value: str(value))
def test_ratios_are_those_of_the_table_to_the_last_digit(window: int, length: str) -> None:
    for name, expected in zip(QWEN, TABLE[window, length], strict=True):
        shape, tokens = with_window(name, window), LENGTHS[length]
        found = [
            flops.ratio(shape, tokens, phase, whole=whole)
            for phase in ("prefill", "decode")
            for whole in (False, True)
        ]
        # Half a unit of the last digit, and a little for numbers that end on a five.
        assert found == pytest.approx(expected, abs=0.0051), name


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("qwen3-0.6b", (12.58, 18.87, 4.29 + 0.39 + 0.79)),
        ("qwen3-1.7b", (25.17, 75.50, 8.57 + 0.39 + 0.79)),
        ("smollm2-135m", (1.77, 5.31, 0.91 + 0.15 + 0.29)),
    ],
)
def test_parts_of_a_layer_take_what_the_table_says(
    name: str, millions: tuple[float, float, float]
) -> None:
    shape = SHAPES[name]
    found = [part / 1e6 for part in (shape.projections, shape.feed_forwards, shape.memory)]
    # The memory is a sum of three rounded numbers, each off by half a unit of its last digit.
    assert found == pytest.approx(millions, abs=0.016)


@pytest.mark.parametrize(
    ("window", "phase", "thousands"),
    [
        (4096, "prefill", (7.4, 8.8)),
        (4096, "decode", (4.9, 5.4)),
        (8192, "prefill", (12.4, 14.1)),
        (8192, "decode", (9.0, 9.5)),
    ],
)
def test_break_even_is_where_the_table_says(
    window: int, phase: flops.Phase, thousands: tuple[float, float]
) -> None:
    for name, expected in zip(QWEN, thousands, strict=True):
        found = flops.break_even(with_window(name, window), phase)
        # Thousands with one digit; the table divides by 1,000 or by 1,024.
        assert min(abs(found / 1000 - expected), abs(found / 1024 - expected)) < 0.051


def test_cache_holds_29_times_fewer_numbers_at_128k() -> None:
    for name in QWEN:
        assert flops.cache_ratio(SHAPES[name], LENGTHS["128k"]) == pytest.approx(29, abs=0.5)
        assert flops.cache_ratio(SHAPES[name], LENGTHS["37k"]) == pytest.approx(8.2, abs=0.05)


def test_window_sees_what_a_count_token_by_token_says() -> None:
    shape = dataclasses.replace(SHAPES["smollm2-135m"], window=7, sinks=3)
    for length in (1, 6, 7, 8, 9, 10, 11, 40):
        seen = [min(t + 1, 7) + min(max(t - 6, 0), 3) for t in range(length)]
        assert flops.seen_by_window(shape, length, "prefill") == pytest.approx(sum(seen) / length)
        assert flops.seen_by_window(shape, length, "decode") == seen[-1]


def test_command_tells_of_a_shape_and_of_the_papers_claim() -> None:
    told = CliRunner().invoke(info, ["--shape", "qwen3-0.6b"])
    assert told.exit_code == 0
    assert "10.55x" in told.output and "20.63x" in told.output and "1/9" in told.output
    as_json = json.loads(CliRunner().invoke(info, ["--shape", "qwen3-1.7b", "--json"]).output)
    assert [row["name"] for row in as_json["lengths"]] == ["4k", "37k", "128k"]


def test_command_tells_of_an_exported_model(toy_dir: object) -> None:
    told = CliRunner().invoke(info, [str(toy_dir), "--flops"])
    assert told.exit_code == 0
    assert "window of 64 and 2 sinks" in told.output


@pytest.mark.parametrize("arguments", [[], ["model", "--shape", "qwen3-0.6b"]], ids=str)
def test_command_refuses_what_cannot_be_meant(arguments: list[str]) -> None:
    assert CliRunner().invoke(info, arguments).exit_code != 0
