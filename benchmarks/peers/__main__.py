"""The same model and text on this runtime and on its best peers, in one run, in turns.

    python -m benchmarks.peers MODEL FILE.gguf TEXT --minutes 60 --json peers.json --plot peers.png

MODEL is a model folder exported from the checkpoint that FILE.gguf was converted to. Each system
runs in a process of its own, started anew for each depth, and reads the same tokens; then all take
turns, and ratios are those of neighboring turns. The most telling comes first; what was not
reached within --minutes, or cannot run, is said.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from allmem_runtime import __version__, load
from allmem_runtime.bench.texts import read_text
from allmem_runtime.engine.threads import cpu_threads
from allmem_runtime.machine import machine
from allmem_runtime.quantities import format_tokens, parse_token_list
from benchmarks.peers import contenders, llama_bench, report, rounds, start
from benchmarks.peers.contenders import GENAI, LLAMA, LLAMA_HALF, LLAMA_TOOL, OURS, TORCH

SHALLOW = 8192
"""Deeper than this a full attention takes minutes to hours to read, so it comes last."""
BUSY = 0.5
"""Other work on the machine, as the average number of processes that want a core."""
TOOL_DEEPEST = 2048
"""llama.cpp's tool reads to the depth again in each turn: deeper, its library is measured alone."""


def phases(depths: list[int], names: set[str]) -> Iterator[tuple[int, list[str]]]:
    """(depth, systems) in the order in which they tell most."""
    deep = [depth for depth in depths if depth > SHALLOW]
    for depth in (depth for depth in depths if depth <= SHALLOW):
        first = [OURS, LLAMA, GENAI, TORCH]
        if depth <= TOOL_DEEPEST or LLAMA not in names:
            first.insert(2, LLAMA_TOOL)
        yield depth, [name for name in first if name in names]
    for depth in deep:
        pair = [OURS, LLAMA if LLAMA in names else LLAMA_TOOL]
        yield depth, [name for name in pair if name in names]
    for depth in depths:
        rest = [LLAMA_HALF] if depth <= SHALLOW else [GENAI, TORCH, LLAMA_HALF]
        if names & set(rest):
            yield depth, [OURS, *(name for name in rest if name in names)]


def merged(row: dict[str, Any], systems: list[dict[str, Any]]) -> None:
    """Add systems to a depth's row; ours is kept from the first time."""
    known = {system["system"] for system in row["systems"]}
    row["systems"] += [system for system in systems if system["system"] not in known]


@click.command(help=__doc__)
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("gguf", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("text", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--depths", default="0,2k,8k,32k", show_default=True)
@click.option("--systems", default=",".join(contenders.ORDER), show_default=True)
@click.option("--minutes", default=60.0, show_default=True, help="Time for all of it.")
@click.option("--rounds", "turns", default=5, show_default=True, type=click.IntRange(1))
@click.option("--prompt", default=512, show_default=True, type=click.IntRange(1))
@click.option("--tokens", "written", default=32, show_default=True, type=click.IntRange(1))
@click.option("--threads", type=click.IntRange(1), help="Of everybody.  [default: physical cores]")
@click.option(
    "--llama-bench",
    "tool",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="llama.cpp's tool.  [default: the one on the path]",
)
@click.option(
    "--python",
    "pythons",
    multiple=True,
    metavar="MODULE=PYTHON",
    help="A Python for llama_library, llama_server, genai or pytorch.",
)
@click.option(
    "--work",
    default=Path("build/peers"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Files made for the peers.",
)
@click.option("--start/--no-start", "with_start", default=True, help="Measure starts too.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--draw", is_flag=True, help="Only draw --plot from an older --json.")
def main(model: Path, gguf: Path, text: Path, depths: str, systems: str, minutes: float,
         turns: int, prompt: int, written: int, threads: int | None, tool: Path | None,
         pythons: tuple[str, ...], work: Path, with_start: bool, json_path: Path | None,
         plot_path: Path | None, draw: bool) -> None:  # fmt: skip
    if draw:
        if json_path is None or plot_path is None:
            raise click.UsageError("--draw needs --json and --plot.")
        report.plot(json.loads(json_path.read_text()), plot_path)
        return
    began = time.monotonic()
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    wanted = tuple(name.strip() for name in systems.split(","))
    unknown = set(wanted) - set(contenders.ORDER)
    if unknown or OURS not in wanted:
        raise click.UsageError(f"--systems takes {', '.join(contenders.ORDER)}, ours among them.")
    steps = parse_token_list(depths, 0)
    opened = load(model, device="cpu", operators="native")
    read = read_text(text, opened.tokenizer)
    plan = rounds.Plan(prompt, min(32, prompt), written, turns, cpu_threads(threads))
    work.mkdir(parents=True, exist_ok=True)
    setup = contenders.Setup(
        model.resolve(), gguf.resolve(), work.resolve(), sys.executable, plan.threads,
        steps[-1] + prompt + written + 64, llama_bench.find_tool(tool),
        dict(pair.split("=", 1) for pair in pythons),
    )  # fmt: skip
    names = opened.name
    values: dict[str, Any] = {
        "what": "benchmarks.peers", "version": __version__, "machine": machine().as_json(),
        "load_before": busy, "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": names,
        "weights": opened.manifest.weights, "threads": plan.threads, "prompt": prompt,
        "question": plan.question, "written": written, "text": text.name, "depths": [],
    }  # fmt: skip
    del opened
    click.echo("making the files of the peers, where they are not there yet", err=True)
    found, missing = contenders.prepare(setup, wanted)
    by_name = {who.name: who for who in found}
    values["missing"] = missing
    deadline = began + minutes * 60
    click.echo(f"{names}, {plan.threads} threads, {machine().name}, text {text.name}")
    if busy > BUSY:
        click.echo(
            f"The machine is busy (load {busy:.1f}): threads that wait awake, as those "
            "of llama.cpp do, lose most. Do not trust these ratios."
        )
    for name, why in missing.items():
        click.echo(f"{name}: not measured: {why}")

    def keep() -> None:
        if json_path is not None:
            json_path.write_text(json.dumps(values, indent=2) + "\n")
        if plot_path is not None and values["depths"]:
            try:
                report.plot(values, plot_path)
            except ImportError:
                click.echo("no picture: install it with `pip install matplotlib`", err=True)

    if with_start:
        starters = [by_name[n] for n in (OURS, LLAMA_TOOL, LLAMA, GENAI) if n in by_name]
        seconds, problems = start.measure(starters, plan, read, deadline)
        values["start_seconds"], values["start_problems"] = seconds, problems
        for line in report.start_lines(seconds, OURS):
            click.echo(line)
        keep()
    click.echo(report.heading())
    rows: dict[int, dict[str, Any]] = {}
    for depth, group in phases(steps, set(by_name)):
        if time.monotonic() >= deadline:
            for name in group[1:]:
                line = f"{format_tokens(depth):>5}  {name:<22}  not reached in {minutes:g} minutes"
                click.echo(line)
            continue
        figures = rounds.measure(
            [by_name[name] for name in group], plan, read, depth, deadline,
            lambda line: click.echo(line, err=True),
        )  # fmt: skip
        for line in report.lines(depth, figures, figures[0], plan):
            click.echo(line)
        if depth not in rows:
            rows[depth] = {"tokens_read": depth, "systems": []}
            values["depths"] = sorted(
                [*values["depths"], rows[depth]], key=lambda row: row["tokens_read"]
            )
        merged(rows[depth], [rounds.as_json(one, plan, figures[0]) for one in figures])
        keep()


if __name__ == "__main__":
    main()
