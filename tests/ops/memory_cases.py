"""The memory cases that every form of the operator is tested on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cases import Case, MemorySizes

from allmem_ops.contract import Value
from allmem_ops.schema import OPERATORS


def _memory(
    name: str,
    chunk: int,
    position: int = 0,
    attributes: Mapping[str, Value] | None = None,
    special: str = "",
    **sizes: Any,
) -> Case:
    return Case(
        name,
        MemorySizes(**sizes),
        {"chunk": chunk, **(attributes or {})},
        position,
        special=special,
    )


_CHOICES: dict[str, tuple[Value, ...]] = {
    a.name: a.choices or (0, 1)
    for a in OPERATORS["TTTMemory"].attributes
    if a.kind == "string" or a.maximum == 1
}


def _memory_cases() -> Iterator[Case]:
    # Where the piece stands in its chunk: every offset, up to and including the commit.
    for position in (0, 1, 4, 6, 7, 8, 15, 16):
        for time in (1, 2, 5, 8):
            if position % 8 + time <= 8:
                yield _memory(f"chunk_at_{position}_time_{time}", 8, position, time=time)
    for position in (0, 3, 8):
        yield _memory(f"no_token_at_{position}", 8, position, time=0)
    yield _memory("chunk_of_one", 1, 3, time=1)
    yield _memory("blank_state_time_1", 8, 0, time=1, special="blank_state")
    yield _memory("blank_state_time_5", 8, 0, time=5, special="blank_state")
    yield _memory("far_position", 8, 2**40 + 3, time=5)
    yield _memory("last_position", 8, 2**62 - 1, time=1)
    # Sizes.
    for dim, hidden in ((1, 1), (3, 5), (7, 9), (16, 16), (20, 33), (64, 128), (80, 40)):
        for time in (1, 6):
            yield _memory(
                f"dim_{dim}_hidden_{hidden}_time_{time}",
                16,
                10,
                time=time,
                memory_dim=dim,
                hidden=hidden,
            )
    for kernel in (1, 2, 3, 5, 9):
        for time in (1, 2, 6):
            yield _memory(f"kernel_{kernel}_time_{time}", 16, 3, time=time, kernel=kernel)
    yield _memory("one_head", 16, 3, time=6, heads=1)
    yield _memory("five_heads", 16, 3, time=6, heads=5)
    for time in (1, 6):
        yield _memory(f"batch_of_three_time_{time}", 16, 16 - time, time=time, batch=3)
    # Tiles and panels of tokens.
    for time in (15, 16, 17, 47, 48, 49, 95, 97, 191, 192, 193, 400):
        yield _memory(f"tiles_time_{time}", 512, 512 - time, time=time, memory_dim=12, hidden=20)
    # Every choice of every attribute, inside a chunk and at its end, as a piece and as a token.
    for attribute, choices in _CHOICES.items():
        for choice in choices:
            for time, position in ((6, 5), (6, 10), (1, 5), (1, 15)):
                yield _memory(
                    f"{attribute}_{choice}_at_{position}_time_{time}",
                    16,
                    position,
                    {attribute: choice},
                    time=time,
                )
    # Choices that touch each other.
    for schedule in ("read_norm_write", "post", "pre", "none"):
        for grad_at in ("normalized", "raw"):
            for loss in ("neg_dot", "l2"):
                for time in (1, 6):
                    yield _memory(
                        f"{schedule}_{grad_at}_{loss}_time_{time}",
                        16,
                        16 - time,
                        {
                            "norm_schedule": schedule,
                            "grad_at": grad_at,
                            "inner_loss": loss,
                            "residual": int(grad_at == "raw"),
                        },
                        time=time,
                    )
    for clip in (0.0, 0.01, 10.0):
        for reduce in ("sum", "mean"):
            yield _memory(
                f"clip_{clip}_{reduce}", 16, 10, {"clip": clip, "lr_reduce": reduce}, time=6
            )
    for time in (1, 6):
        yield _memory(
            f"clip_active_time_{time}", 16, 16 - time, time=time, special="large_gradient"
        )
        yield _memory(f"faint_rates_time_{time}", 16, 3, time=time, special="faint_rates")
        yield _memory(
            f"strong_logits_time_{time}", 16, 16 - time, time=time, special="strong_logits"
        )
        for out_norm in (0, 1):
            yield _memory(
                f"silent_tokens_{out_norm}_time_{time}",
                16,
                3,
                {"out_norm": out_norm, "value_norm": "l2"},
                time=time,
                special="silent_tokens",
            )
        yield _memory(f"large_epsilon_time_{time}", 16, 3, {"epsilon": 0.01}, time=time)


MEMORY_CASES: tuple[Case, ...] = tuple(_memory_cases())
