"""One system in a process of its own: takes a request a line, answers a line, holds the clock.

It runs in the Python that has the system, which need not be the one that has this runtime, so it
imports nothing but the standard library and that system.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any


def answer(system: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked; the seconds it took, and what a system has to tell besides.

    ``read`` stays; ``prompt`` and ``write`` are forgotten again, outside of the time.
    """
    began = time.perf_counter()
    kind = request["do"]
    told: dict[str, Any] = {}
    if kind == "mark":
        system.mark()
    elif kind == "keep":
        system.keep(request["path"])
    elif kind == "resume":
        system.resume(request["path"], request["length"])
    elif kind in ("read", "prompt"):
        system.feed(request["ids"])
    elif kind == "write":
        system.write(request["token"], request["count"])
    elif kind in ("bytes", "names", "recall"):
        given = {name: value for name, value in request.items() if name != "do"}
        told = getattr(system, kind)(**given)
    else:
        raise ValueError(f"no such request: {kind}")
    seconds = time.perf_counter() - began
    if kind in ("prompt", "write"):
        system.back()
    return {"seconds": seconds, **told}


def main() -> None:
    # Libraries print to standard output what they like; answers have a stream of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    module, model, threads, context = sys.argv[1:]
    try:
        made = importlib.import_module(f"benchmarks.peers.systems.{module}")
        system = made.System(model, int(threads), int(context))
        print(json.dumps({"version": system.version}), file=answers, flush=True)
        for line in sys.stdin:
            told = answer(system, json.loads(line))
            print(json.dumps(told), file=answers, flush=True)
    except Exception as error:  # noqa: BLE001 - what a peer raises is the result
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        print(json.dumps({"error": text[:300]}), file=answers, flush=True)


if __name__ == "__main__":
    main()
