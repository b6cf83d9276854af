"""The same model and text on this runtime and on its best peers, in one run, alternately.

    python -m benchmarks.peers MODEL FILE.gguf TEXT --minutes 60 --json peers.json --plot peers.png

MODEL is a model folder exported from the checkpoint that FILE.gguf was converted to. Each system
runs in a process of its own, started anew for each depth, and reads the same tokens; then all take
turns, and ratios are those of neighboring turns. The most telling comes first; what was not
reached within --minutes, or cannot run, is said.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from allmem_runtime import __version__, load
from allmem_runtime.bench.texts import read_text
from allmem_runtime.engine.threads import cpu_threads
from allmem_runtime.files.atomic import USUAL, replace_text
from allmem_runtime.machine import machine
from allmem_runtime.quantities import format_tokens
from benchmarks.arguments import (
    add_model,
    add_text,
    at_least_one,
    existing_file,
    names,
    parser_of,
    tokens,
)
from benchmarks.arguments import depths as token_depths
from benchmarks.peers import contenders, limit, llama_bench, report, rounds, start
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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = parser_of("peers", __doc__)
    add_model(made)
    made.add_argument("gguf", type=existing_file, help="the same model for llama.cpp")
    add_text(made)
    made.add_argument(
        "--depths",
        type=token_depths,
        default=[0, 2048, 8192, 32768],
        help="tokens read before measuring, such as 0,2k,8k,32k",
    )
    made.add_argument(
        "--systems", type=names, default=list(contenders.ORDER), help="who is measured"
    )
    made.add_argument("--minutes", type=float, default=60.0, help="time for all of it")
    made.add_argument("--rounds", type=at_least_one, default=5, help="of each measurement")
    made.add_argument("--prompt", type=tokens, default=512, help="tokens of a prompt")
    made.add_argument("--tokens", type=tokens, default=32, help="tokens written for one figure")
    made.add_argument(
        "--threads", type=at_least_one, help="of everybody (default: the physical cores)"
    )
    made.add_argument(
        "--llama-bench",
        type=existing_file,
        metavar="TOOL",
        help="llama.cpp's tool (default: the one on the path)",
    )
    made.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="MODULE=PYTHON",
        help="a Python for llama_library, llama_server, genai or pytorch",
    )
    made.add_argument(
        "--work", type=Path, default=Path("build/peers"), help="files made for the peers"
    )
    made.add_argument(
        "--readings",
        type=Path,
        metavar="FOLDER",
        help="keep what llama.cpp's library has read to a depth here, and go on from it the next "
        "time: reading deep takes it hours",
    )
    made.add_argument(
        "--start", action=argparse.BooleanOptionalAction, default=True, help="measure starts too"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="keep all figures here")
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw them")
    made.add_argument("--draw", action="store_true", help="only draw --plot from an older --json")
    return made


def main(given: Sequence[str] | None = None) -> None:
    """Measure everybody alternately, depth by depth."""
    command = parser()
    arguments = command.parse_args(given)
    json_path, plot_path = arguments.json, arguments.plot
    if arguments.draw:
        if json_path is None or plot_path is None:
            command.error("--draw needs --json and --plot.")
        report.plot(json.loads(json_path.read_text()), plot_path)
        return
    model, gguf, text, work = arguments.model, arguments.gguf, arguments.text, arguments.work
    prompt, written, minutes = arguments.prompt, arguments.tokens, arguments.minutes
    began = time.monotonic()
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    wanted = tuple(arguments.systems)
    unknown = set(wanted) - set(contenders.ORDER)
    if unknown or OURS not in wanted:
        command.error(f"--systems takes {', '.join(contenders.ORDER)}, ours among them.")
    steps = arguments.depths
    opened = load(model, device="cpu", operators="native")
    read = read_text(text, opened.tokenizer)
    plan = rounds.Plan(
        prompt, min(32, prompt), written, arguments.rounds, cpu_threads(arguments.threads),
        arguments.readings and arguments.readings.resolve(),
    )  # fmt: skip
    work.mkdir(parents=True, exist_ok=True)
    setup = contenders.Setup(
        model.resolve(), gguf.resolve(), work.resolve(), sys.executable, plan.threads,
        steps[-1] + prompt + written + 64, llama_bench.find_tool(arguments.llama_bench),
        dict(pair.split("=", 1) for pair in arguments.python),
    )  # fmt: skip
    names = opened.name
    values: dict[str, Any] = {
        "what": "benchmarks.peers", "version": __version__, "machine": machine().as_json(),
        "load_before": busy, "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": names,
        "weights": opened.manifest.weights, "threads": plan.threads, "prompt": prompt,
        "question": plan.question, "written": written, "text": text.name, "depths": [],
    }  # fmt: skip
    most = limit.most_tokens_per_second(opened.manifest, plan.threads)
    values["most_prefill_tokens_per_second"] = most
    del opened
    print("making the files of the peers, where they are not there yet", file=sys.stderr)
    found, missing = contenders.prepare(setup, wanted)
    by_name = {who.name: who for who in found}
    values["missing"] = missing
    deadline = began + minutes * 60
    print(f"{names}, {plan.threads} threads, {machine().name}, text {text.name}", flush=True)
    if busy > BUSY:
        print(
            f"The machine is busy (load {busy:.1f}): threads that wait awake, as those "
            "of llama.cpp do, lose most. Do not trust these ratios.",
            flush=True,
        )
    for name, why in missing.items():
        print(f"{name}: not measured: {why}", flush=True)

    def keep() -> None:
        if json_path is not None:
            replace_text(json_path, json.dumps(values, indent=2) + "\n", mode=USUAL)
        if plot_path is not None and values["depths"]:
            try:
                report.plot(values, plot_path)
            except ImportError:
                print("no picture: install it with `pip install matplotlib`", file=sys.stderr)

    if arguments.start:
        starters = [by_name[n] for n in (OURS, LLAMA_TOOL, LLAMA, GENAI) if n in by_name]
        seconds, problems = start.measure(starters, plan, read, deadline)
        values["start_seconds"], values["start_problems"] = seconds, problems
        for line in report.start_lines(seconds, OURS):
            print(line, flush=True)
        keep()
    print(report.heading(), flush=True)
    rows: dict[int, dict[str, Any]] = {}
    for depth, group in phases(steps, set(by_name)):
        if time.monotonic() >= deadline:
            for name in group[1:]:
                line = f"{format_tokens(depth):>5}  {name:<22}  not reached in {minutes:g} minutes"
                print(line, flush=True)
            continue
        figures = rounds.measure(
            [by_name[name] for name in group], plan, read, depth, deadline,
            lambda line: print(line, file=sys.stderr),
        )  # fmt: skip
        for one in figures:
            rounds.refuse_impossible(one, plan, most)
        for line in report.lines(depth, figures, figures[0], plan):
            print(line, flush=True)
        if depth not in rows:
            rows[depth] = {"tokens_read": depth, "systems": []}
            values["depths"] = sorted(
                [*values["depths"], rows[depth]], key=lambda row: row["tokens_read"]
            )
        merged(rows[depth], [rounds.as_json(one, plan, figures[0]) for one in figures])
        keep()


if __name__ == "__main__":
    main()
