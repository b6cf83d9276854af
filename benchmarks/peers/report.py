"""What was found: lines for people, and a picture of speed and memory against tokens read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from allmem_runtime.bench.statistics import Spread
from allmem_runtime.plotting import picture
from allmem_runtime.quantities import format_bytes, format_tokens
from benchmarks.peers.rounds import Figures, Plan, ratios

_COLUMNS = (
    ("read", 5), ("system", 22), ("decode tok/s", 22), ("ours ÷ it", 20), ("prefill tok/s", 20),
    ("ours ÷ it", 20), ("first token, ms", 20), ("resident", 9), ("private", 9),
)  # fmt: skip


def _line(cells: Sequence[str]) -> str:
    parts = []
    for number, (cell, (_, width)) in enumerate(zip(cells, _COLUMNS, strict=True)):
        parts.append(f"{cell:<{width}}" if number == 1 else f"{cell:>{width}}")
    return "  ".join(parts).rstrip()


def heading() -> str:
    """The first line of the table."""
    return _line([name for name, _ in _COLUMNS])


def lines(depth: int, all_figures: Sequence[Figures], ours: Figures, plan: Plan) -> Iterator[str]:
    """The lines of one depth."""
    for figures in all_figures:
        name = format_tokens(depth)
        if not figures.write:
            yield f"{name:>5}  {figures.name:<22}  cannot be told: {figures.problem}"
            continue
        same = figures is ours
        cells = [name, figures.name, _speed(figures.write, plan.written, 1)]
        cells.append("" if same else _ratio(ratios(ours.write, figures.write)))
        cells.append(_speed(figures.prompt, plan.prompt, 0))
        cells.append("" if same else _ratio(ratios(ours.prompt, figures.prompt)))
        cells.append(_milliseconds(figures.question))
        memory = figures.memory
        for count in (None, None) if memory is None else (memory.resident, memory.private):
            cells.append("–" if count is None else format_bytes(count))
        yield _line(cells) + (f"  ({figures.problem})" if figures.problem else "")


def start_lines(found: dict[str, list[float]], ours: str) -> Iterator[str]:
    """From process start to first token."""
    for name, seconds in found.items():
        if not seconds:
            continue
        text = f"start to first token, {name}: {Spread.of(seconds).text(2)} s"
        pairs = [a / b for a, b in zip(found.get(ours, []), seconds, strict=False)]
        if name != ours and pairs:
            text += f", ours ÷ it {Spread.of(pairs).text(2)}"
        yield text


def _speed(seconds: Sequence[float], tokens: int, digits: int) -> str:
    return Spread.of(seconds).map(lambda value: tokens / value).text(digits)


def _ratio(found: Spread | None) -> str:
    return "–" if found is None else found.text(2)


def _milliseconds(seconds: Sequence[float]) -> str:
    return Spread.of(seconds).map(lambda value: value * 1e3).text() if seconds else "–"


def plot(values: dict[str, Any], path: Path) -> None:
    """Draw what the JSON holds: decode speed and memory of every system against tokens read."""
    depths = [row["tokens_read"] for row in values["depths"]]
    names = list(dict.fromkeys(s["system"] for row in values["depths"] for s in row["systems"]))
    with picture(path, 1, 2, (11, 4.5)) as figure:
        speed, memory = figure.axes
        for number, name in enumerate(names):
            style = {"marker": "o", "color": f"C{number}", "label": name}
            style["linewidth"] = 2.5 if number == 0 else 1.2
            found = [
                (row["tokens_read"], system)
                for row in values["depths"]
                for system in row["systems"]
                if system["system"] == name and "decode_tokens_per_second" in system
            ]
            if not found:
                continue
            rates = [(d, s["decode_tokens_per_second"]) for d, s in found]
            error = [[r["median"] - r["lowest"] for _, r in rates],
                     [r["highest"] - r["median"] for _, r in rates]]  # fmt: skip
            medians = [r["median"] for _, r in rates]
            speed.errorbar([d for d, _ in rates], medians, yerr=error, capsize=3, **style)
            known = [(d, s["resident_bytes"] / 2**20) for d, s in found if s["resident_bytes"]]
            if known:
                memory.plot([d for d, _ in known], [mib for _, mib in known], **style)
        speed.set_title("tokens written in a second")
        memory.set_title("resident memory, MiB")
        for axis in (speed, memory):
            axis.set_xscale("symlog", linthresh=1024)
            axis.set_xticks(depths, [format_tokens(depth) for depth in depths])
            axis.minorticks_off()
            axis.set_xlabel("tokens read")
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
        lines, labels = speed.get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside lower center", ncols=6, fontsize=8)
        machine = values["machine"]
        figure.suptitle(
            f"{values['model']}, {values['threads']} threads, {machine['name']}", size=10
        )
