"""From the start of a process to its first token, after a short prompt."""

from __future__ import annotations

import time
from pathlib import Path

from allmem_runtime.bench.texts import Text
from benchmarks.peers import llama_bench
from benchmarks.peers.child import Child, Gone
from benchmarks.peers.contenders import Contender
from benchmarks.peers.rounds import Plan

ROUNDS = 7


def seconds(who: Contender, plan: Plan, text: Text, deadline: float) -> float:
    """One start: process, libraries, model, prompt, first token.

    Raises:
        Gone: it failed, or there was no time.
    """
    if not who.module:
        tool = Path(who.python)
        return llama_bench.start_seconds(tool, who.model, plan.threads, plan.question, deadline)
    context = plan.question + 64
    began = time.perf_counter()
    child = Child(who.python, who.module, who.model, plan.threads, context, deadline)
    try:
        child.ask(do="read", ids=text.part(0, plan.question))
        return time.perf_counter() - began
    finally:
        child.close()


def measure(
    contenders: list[Contender], plan: Plan, text: Text, deadline: float, rounds: int = ROUNDS
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of each system, round by round, alternately; and why some have none."""
    found: dict[str, list[float]] = {who.name: [] for who in contenders}
    problems: dict[str, str] = {}
    for number in range(rounds + 1):
        for who in contenders:
            if who.name in problems:
                continue
            try:
                took = seconds(who, plan, text, deadline)
            except Gone as gone:
                problems[who.name] = str(gone)
            else:
                if number:  # the first brings the files into memory
                    found[who.name].append(took)
    return found, problems
