"""The attention cases that every form of the operator is tested on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from cases import AttentionSizes, Case

from allmem_ops.contract import Value


def _attention(
    name: str,
    window: int | tuple[int, ...],
    sinks: int,
    position: int = 0,
    attributes: Mapping[str, Value] | None = None,
    **sizes: Any,
) -> Case:
    chosen = AttentionSizes(**sizes)
    values: dict[str, Value] = {
        "window": window,
        "sinks": sinks,
        "scale": float(np.float32(chosen.head_dim**-0.5)),
    }
    return Case(name, chosen, {**values, **(attributes or {})}, position)


def _attention_cases() -> Iterator[Case]:
    # Where the piece stands: before, on and after every border of the ring.
    for position in (0, 1, 2, 3, 5, 6, 7, 8, 9, 12, 17):
        for time in (1, 2, 4, 9):
            yield _attention(f"ring_at_{position}_time_{time}", 5, 3, position, time=time)
    yield _attention("no_token", 5, 3, 11, time=0)
    yield _attention("window_of_one", 1, 0, 7, time=4)
    yield _attention("window_of_one_and_a_sink", 1, 1, 7, time=4)
    yield _attention("window_of_one_single_token", 1, 2, 7, time=1)
    yield _attention("no_sinks", 6, 0, 20, time=5)
    yield _attention("no_sinks_single_token", 6, 0, 20, time=1)
    yield _attention("more_sinks_than_tokens", 4, 9, 2, time=5)
    yield _attention("piece_longer_than_ring", 7, 2, 30, time=40)
    yield _attention("piece_longer_than_ring_from_start", 7, 2, 0, time=40)
    yield _attention("batch_of_three", 6, 2, 9, batch=3, time=4)
    yield _attention("batch_of_three_single_token", 6, 2, 9, batch=3, time=1)
    # Heads, and widths that are no multiple of any vector.
    for head_dim in (1, 2, 3, 7, 13, 16, 20, 33, 64, 80, 128):
        for time in (1, 6):
            yield _attention(
                f"head_dim_{head_dim}_time_{time}", 9, 2, 15, time=time, head_dim=head_dim
            )
    for query_heads, kv_heads in ((1, 1), (5, 1), (3, 3), (6, 2), (14, 2), (8, 1)):
        for time in (1, 7):
            yield _attention(
                f"heads_{query_heads}_{kv_heads}_time_{time}",
                9,
                2,
                15,
                time=time,
                query_heads=query_heads,
                kv_heads=kv_heads,
                head_dim=12,
            )
    # Tiles of keys and rows: just below, at and above their sizes.
    for time in (15, 16, 17, 47, 48, 49, 63, 65, 130):
        yield _attention(f"tiles_time_{time}", 100, 5, 77, time=time, head_dim=24)
    for window in (63, 64, 65, 128):
        yield _attention(f"tiles_window_{window}", window, 64, 500, time=33, head_dim=16)
    for window in (500, 512, 1100):  # slices of a decode step
        yield _attention(f"long_ring_{window}", window, 70, 5000, time=1, head_dim=20)
        yield _attention(f"half_full_ring_{window}", window, 70, 400, time=1, head_dim=20)
    # Windows that differ by head: rings that are full and such that are not, long beside short.
    for windows in ((7,), (5, 5), (3, 9), (9, 3), (4, 64, 20), (600, 5), (5, 600, 300)):
        heads = {"kv_heads": len(windows), "query_heads": 3 * len(windows)}
        label = "_".join(map(str, windows))
        for cache in ("float32", "float16", "int8"):
            for position in (0, 7, 700):
                for time in (1, 3, 70) if len(windows) == 3 else (1, 3):
                    yield _attention(
                        f"windows_{label}_{cache}_at_{position}_time_{time}",
                        windows,
                        3,
                        position,
                        time=time,
                        cache=cache,
                        head_dim=20,
                        **heads,
                    )
    for time in (1, 6):
        yield _attention(f"windows_no_sinks_time_{time}", (6, 40), 0, 20, time=time)
        yield _attention(f"windows_batch_time_{time}", (6, 40), 2, 30, batch=3, time=time)
        yield _attention(f"windows_no_token_{time}", (6, 40), 2, 30, batch=time, time=0)
        yield _attention(
            f"windows_true_sinks_time_{time}", (6, 40), 3, 60, {"sink_rope": "true"}, time=time
        )
        yield _attention(
            f"windows_head_norm_time_{time}", (6, 40), 3, 60, {"norm_epsilon": 1e-6}, time=time
        )
    # Attributes.
    for time in (1, 6):
        for sink_rope in ("clamped", "true"):
            yield _attention(
                f"sink_rope_{sink_rope}_time_{time}", 6, 3, 40, {"sink_rope": sink_rope}, time=time
            )
        yield _attention(f"clamp_begins_inside_time_{time}", 6, 3, 6, time=time)
        yield _attention(f"head_norm_time_{time}", 6, 3, 40, {"norm_epsilon": 1e-6}, time=time)
        yield _attention(f"amplitude_time_{time}", 6, 3, 40, {"rope_amplitude": 1.25}, time=time)
        yield _attention(f"scale_zero_time_{time}", 6, 3, 40, {"scale": 0.0}, time=time)
        yield _attention(f"scale_large_time_{time}", 6, 3, 40, {"scale": 3.0}, time=time)
        yield _attention(f"no_rotation_time_{time}", 6, 3, 40, time=time, rotary_half=0)
        yield _attention(
            f"partial_rotation_time_{time}", 6, 3, 40, time=time, head_dim=10, rotary_half=2
        )
    # Capped scores: far below the cap, near it and beyond, in every form and type of the ring.
    for softcap in (50.0, 2.0, 0.3):
        for time in (1, 2, 6, 70):
            yield _attention(
                f"softcap_{softcap}_time_{time}",
                100,
                3,
                140,
                {"softcap": softcap, "scale": 1.0},
                time=time,
                head_dim=20,
            )
    for cache in ("float16", "int8"):
        for time in (1, 6):
            yield _attention(
                f"softcap_{cache}_time_{time}",
                12,
                3,
                31,
                {"softcap": 1.5, "scale": 0.5, "norm_epsilon": 1e-6},
                time=time,
                head_dim=64,
                cache=cache,
            )
    for time in (1, 6):
        yield _attention(
            f"softcap_windows_time_{time}", (6, 40), 3, 60, {"softcap": 1.0}, time=time
        )
        yield _attention(
            f"softcap_no_sinks_time_{time}", 6, 0, 20, {"softcap": 1.0}, time=time, kv_heads=1
        )
    # Sink logits: in every form and type of the ring, over few tokens and many.
    for cache in ("float32", "float16", "int8"):
        for time in (1, 2, 6, 70):
            yield _attention(
                f"sink_logits_{cache}_time_{time}",
                100,
                3,
                140,
                time=time,
                head_dim=20,
                cache=cache,
                sink_logits=True,
            )
            yield _attention(
                f"sink_logits_{cache}_from_start_time_{time}",
                7,
                2,
                time=time,
                cache=cache,
                query_heads=6,
                sink_logits=True,
            )
        for time in (1, 40):
            yield _attention(
                f"sink_logits_windows_{cache}_time_{time}",
                (5, 600),
                3,
                700,
                {"softcap": 1.5},
                time=time,
                batch=2,
                cache=cache,
                sink_logits=True,
            )
    # Far positions: exact ring arithmetic, angles that float32 or int32 would lose.
    for bits in (20, 30, 31, 33, 53, 61):
        for time in (1, 6):
            yield _attention(f"position_2_to_{bits}_time_{time}", 6, 3, 2**bits - 2, time=time)
    for time in (1, 6):
        yield _attention(f"last_position_time_{time}", 6, 3, 2**62 - time, time=time)
    # Float16 caches.
    for time in (0, 1, 2, 6, 40):
        for head_dim in (7, 16, 64):
            yield _attention(
                f"float16_time_{time}_dim_{head_dim}",
                12,
                3,
                31,
                {"norm_epsilon": 1e-5},
                time=time,
                head_dim=head_dim,
                cache="float16",
            )
    # Int8 caches: pieces and tokens, before and after the ring is full, long and wide.
    for time in (0, 1, 2, 6, 40):
        for head_dim in (1, 7, 16, 20, 64, 128):
            yield _attention(
                f"int8_time_{time}_dim_{head_dim}",
                12,
                3,
                31,
                {"norm_epsilon": 1e-5},
                time=time,
                head_dim=head_dim,
                cache="int8",
            )
    for position in (0, 2, 9):
        for time in (1, 4):
            yield _attention(
                f"int8_at_{position}_time_{time}", 5, 3, position, time=time, cache="int8"
            )
    for time in (1, 5):
        yield _attention(f"int8_batch_time_{time}", 6, 2, 9, batch=3, time=time, cache="int8")
    for time, query_heads, head_dim in ((150, 9, 64), (1, 9, 64), (1, 15, 80), (1, 6, 33)):
        yield _attention(
            f"int8_long_time_{time}_heads_{query_heads}_dim_{head_dim}",
            1100,
            64,
            9000,
            time=time,
            query_heads=query_heads,
            kv_heads=3,
            head_dim=head_dim,
            cache="int8",
        )
    yield _attention(
        "float16_long",
        256,
        4,
        900,
        time=150,
        query_heads=9,
        kv_heads=3,
        head_dim=64,
        cache="float16",
    )
    yield _attention(
        "float16_long_ring",
        1100,
        64,
        9000,
        time=1,
        query_heads=9,
        kv_heads=3,
        head_dim=64,
        cache="float16",
    )


ATTENTION_CASES: tuple[Case, ...] = tuple(_attention_cases())
CUDA_ATTENTION_CASES = tuple(case for case in ATTENTION_CASES if case.cache != "int8")
