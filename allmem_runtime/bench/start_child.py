"""One start of a model in a process of its own: tells when the first token is there, and memory.

Run by ``start``: MODEL OPERATORS THREADS(0: the default) prepared|exported FILE-FOR-LOGITS.
"""

from __future__ import annotations

import json
import sys
import time

PROBE_TOKENS = 9


def main(arguments: list[str]) -> None:
    """Open, feed one token, say so; feed some more, keep their logits, tell the memory."""
    path, operators, threads, how, target = arguments
    from allmem_runtime.engine.threads import no_blas_threads

    no_blas_threads()  # as allmem-run does
    from allmem_runtime.model import load

    imported = time.perf_counter()
    model = load(
        path,
        device="cpu",
        operators=operators,
        threads=int(threads) or None,
        prepared=how == "prepared",
    )
    opened = time.perf_counter()
    session = model.session(undo=False)
    vocab = model.manifest.backbone.vocab_size
    probe = [(i * 7919 + 1) % vocab for i in range(PROBE_TOKENS)]
    session.feed(probe[:1], "last")
    written = time.perf_counter()
    _say(
        opening=opened - imported,
        first_step=written - opened,
        processor=time.process_time(),
        prepared=str(model.engine.prepared or ""),
        notices=model.engine.notices,
        operators=model.operators,
        threads=model.engine.threads,
    )

    import numpy as np

    from allmem_runtime.bench.process_memory import process_memory

    memory = process_memory()
    rows = session.feed(probe[1:], "all")
    assert rows is not None
    np.save(target, rows)
    _say(
        resident=memory.resident,
        private=memory.private,
        anonymous=memory.anonymous,
        state=model.state_bytes,
    )


def _say(**values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
