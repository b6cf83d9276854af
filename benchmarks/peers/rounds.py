"""Measure several systems at one depth, alternately."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from allmem_runtime.bench.process_memory import ProcessMemory
from allmem_runtime.bench.statistics import Spread
from allmem_runtime.bench.texts import Text
from benchmarks.peers import llama_bench
from benchmarks.peers.child import Child, Gone
from benchmarks.peers.contenders import Contender

SLICE = 512
"""Tokens read between two looks at the clock."""
READING = 0.75
"""Share of the time left that all systems together may take to read to a depth."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        prompt: tokens of a prompt.
        question: tokens of a short prompt, for the time to the first token.
        written: tokens written for one figure.
        rounds: turns of each system.
        threads: CPU threads.
        readings: folder in which peers that can keep what they have read; None keeps nothing.
    """

    prompt: int = 512
    question: int = 32
    written: int = 32
    rounds: int = 5
    threads: int = 1
    readings: Path | None = None


@dataclass(slots=True)
class Figures:
    """What one system did at one depth; seconds, round by round.

    Attributes:
        name: the system.
        problem: why there is nothing, or not all.
    """

    name: str
    version: str = ""
    reading: float | None = None
    prompt: list[float] = field(default_factory=list)
    question: list[float] = field(default_factory=list)
    write: list[float] = field(default_factory=list)
    memory: ProcessMemory | None = None
    problem: str = ""


class _Turns:
    """One system at one depth."""

    def __init__(self, contender: Contender, plan: Plan, text: Text, depth: int) -> None:
        self.figures = Figures(contender.name)
        self._contender = contender
        self._plan = plan
        self._text = text
        self._depth = depth
        self._child: Child | None = None

    def open(self, deadline: float) -> None:
        """Start it and read to the depth; its own tool does so by itself, every time."""
        if not self._contender.module:
            return
        plan, depth = self._plan, self._depth
        context = depth + plan.prompt + plan.written + 64
        who = self._contender
        self._child = Child(who.python, who.module, who.model, plan.threads, context, deadline)
        self.figures.version = self._child.version
        kept = self._kept()
        if kept is not None and kept.exists():
            self._child.ask(do="resume", path=str(kept), length=depth)
        else:
            self._read(self._child)
            if kept is not None:
                self._keep(self._child, kept)
        self._child.ask(do="mark")
        for size in (plan.prompt, plan.question):
            self._child.ask(do="prompt", ids=self._part(size))
        self._child.ask(do="write", token=self._part(1)[0], count=2)

    def _read(self, child: Child) -> None:
        seconds = 0.0
        for at in range(0, self._depth, SLICE):
            ids = self._text.part(at, min(self._depth, at + SLICE))
            seconds += child.ask(do="read", ids=ids)
        self.figures.reading = seconds if self._depth else None

    def _kept(self) -> Path | None:
        """The file of this reading, named by all it depends on."""
        folder, who = self._plan.readings, self._contender
        if folder is None or not who.keeps or not self._depth:
            return None
        size = who.model.stat().st_size
        what = json.dumps(
            [who.model.name, size, self.figures.version, self._text.part(0, self._depth)]
        )
        return folder / f"{who.model.stem}-{self._depth}-{sha256(what.encode()).hexdigest()[:16]}"

    def _keep(self, child: Child, path: Path) -> None:
        """Under its name only when it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.new")
        child.ask(do="keep", path=str(beside))
        beside.replace(path)

    def turn(self, deadline: float) -> None:
        """One figure of each kind."""
        plan, figures = self._plan, self.figures
        if self._child is not None:
            self._child.may_take_until(deadline)
        else:
            sizes = {"prompt": plan.prompt, "written": plan.written}
            who = self._contender
            found = llama_bench.measure(
                Path(who.python), who.model, plan.threads, self._depth, sizes, deadline
            )
            figures.prompt.append(found["prompt"])
            figures.write.append(found["written"])
            return
        figures.prompt.append(self._child.ask(do="prompt", ids=self._part(plan.prompt)))
        figures.question.append(self._child.ask(do="prompt", ids=self._part(plan.question)))
        count = plan.written
        figures.write.append(self._child.ask(do="write", token=self._part(1)[0], count=count))
        figures.memory = self._child.memory()

    def close(self) -> None:
        if self._child is not None:
            self._child.close()

    def _part(self, size: int) -> list[int]:
        return self._text.part(self._depth, self._depth + size)


def measure(
    contenders: Sequence[Contender],
    plan: Plan,
    text: Text,
    depth: int,
    deadline: float,
    say: Callable[[str], None] = lambda text: None,
) -> list[Figures]:
    """Figures of all systems at one depth; who cannot go on is left out from there.

    Args:
        contenders: in the order of their turns.
        plan: how much.
        text: all read the same one.
        depth: tokens read before.
        deadline: when to stop, by ``time.monotonic``.
        say: told what is being done.
    """
    all_turns = [_Turns(contender, plan, text, depth) for contender in contenders]
    alive: list[_Turns] = []
    now = time.monotonic()
    read_by = now + READING * (deadline - now)
    try:
        for turns in all_turns:
            say(f"{turns.figures.name}: to {depth:,} tokens")
            if _survives(turns, turns.open, read_by):
                alive.append(turns)
        for number in range(plan.rounds):
            # Nobody is always the first after somebody else.
            order = alive if number % 2 == 0 else alive[::-1]
            for turns in list(order):
                if time.monotonic() >= deadline:
                    turns.figures.problem = _late(turns.figures)
                elif not _survives(turns, turns.turn, deadline):
                    alive.remove(turns)
    finally:
        for turns in all_turns:
            turns.close()
    return [turns.figures for turns in all_turns]


def refuse_impossible(figures: Figures, plan: Plan, most: float) -> None:
    """Drop what no machine computed: prompts read faster than ``most`` tokens a second.

    Args:
        figures: of one system at one depth, changed in place.
        plan: how much was measured.
        most: what the machine's own products allow.
    """
    fastest = plan.prompt / min(figures.prompt, default=float("inf"))
    if fastest > most:
        figures.problem = (
            f"not believed: {fastest:,.0f} tokens/s of a prompt, where this machine's products "
            f"allow {most:,.0f}; a cache must have answered"
        )
        figures.prompt, figures.question, figures.write = [], [], []


def _survives(turns: _Turns, work: Callable[[float], None], deadline: float) -> bool:
    try:
        work(deadline)
    except Gone as gone:
        turns.figures.problem = str(gone)
        turns.close()
        return False
    return True


def _late(figures: Figures) -> str:
    return "fewer rounds: no time was left" if figures.write else "no time was left"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread | None:
    """Their seconds over ours, round by round: how many times as fast we are."""
    pairs = [b / a for a, b in zip(ours, theirs, strict=False)]
    return Spread.of(pairs) if pairs else None


def as_json(figures: Figures, plan: Plan, ours: Figures | None) -> dict[str, Any]:
    """Plain values: every measurement, and ratios to ours."""
    values: dict[str, Any] = {
        "system": figures.name,
        "version": figures.version,
        "problem": figures.problem,
        "reading_seconds": figures.reading,
        "prompt_seconds": figures.prompt,
        "question_seconds": figures.question,
        "write_seconds": figures.write,
        "resident_bytes": figures.memory and figures.memory.resident,
        "private_bytes": figures.memory and figures.memory.private,
    }
    if figures.write:
        speed = Spread.of(figures.write).map(lambda seconds: plan.written / seconds)
        values["decode_tokens_per_second"] = speed.as_json()
        prompt = Spread.of(figures.prompt).map(lambda seconds: plan.prompt / seconds)
        values["prefill_tokens_per_second"] = prompt.as_json()
    if ours is not None and figures is not ours:
        for kind in ("prompt", "question", "write"):
            found = ratios(getattr(ours, kind), getattr(figures, kind))
            values[f"ours_over_it_{kind}"] = None if found is None else found.as_json()
    return values
