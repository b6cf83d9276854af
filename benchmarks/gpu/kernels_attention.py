"""SlidingWindowAttention beside PyTorch's attention: prefill and decode.

Ours is given packed, unrotated queries, keys and values, and does the norms, the rotation, the
rounding and the ring as well; the others are given queries and keys ready to use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from allmem_ops.kernel_library import Unavailable
from allmem_ops.schema import SLIDING_WINDOW_ATTENTION
from allmem_runtime.quantities import format_bytes
from benchmarks.gpu.bench import Bench, Task
from benchmarks.gpu.bound import BoundOperator, launch_all
from benchmarks.gpu.timing import Call, Contender

SECTION = "attention"
OURS = "ours"
MOST_MASK_BYTES = 8 << 30
LARGE_MASK = 32768
FLUSH_BYTES = 256 << 20  # decode goes round so many bytes of rings, more than a cache holds


@dataclass(frozen=True)
class Sizes:
    """Heads and window of a model."""

    query_heads: int = 16
    kv_heads: int = 8
    head_dim: int = 128
    window: int = 1024
    sinks: int = 64

    def __str__(self) -> str:
        heads = f"{self.query_heads}/{self.kv_heads}x{self.head_dim}"
        return f"{heads} window {self.window}+{self.sinks}"

    @property
    def slots(self) -> int:
        """Of the ring."""
        return self.window + self.sinks

    def pairs(self, tokens: int) -> int:
        """Visible pairs of query and key in a text read from its beginning."""
        before = np.arange(1, tokens + 1, dtype=np.int64)  # keys up to the query itself
        outside = np.minimum(self.sinks, np.maximum(before - self.window, 0))
        return int((np.minimum(before, self.window) + outside).sum())


def inputs(
    sizes: Sizes, tokens: int, position: int, dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """Random inputs of a call."""
    packed = (sizes.query_heads + 2 * sizes.kv_heads) * sizes.head_dim
    ring = (1, sizes.kv_heads, sizes.slots, sizes.head_dim)
    exponent = torch.arange(sizes.head_dim // 2, device=device) / (sizes.head_dim // 2)
    return {
        "qkv": torch.randn(1, tokens, packed, device=device).to(dtype),
        "position": torch.tensor([position], device=device),
        "inverse_frequencies": 1e6**-exponent,
        "query_norm": torch.ones(sizes.head_dim, device=device),
        "key_norm": torch.ones(sizes.head_dim, device=device),
        "past_key": torch.randn(ring, device=device).to(dtype),
        "past_value": torch.randn(ring, device=device).to(dtype),
    }


def bind(bench: Bench, sizes: Sizes, given: dict[str, Tensor], epsilon: float) -> BoundOperator:
    """Our operator on these inputs."""
    if bench.library is None:
        raise Unavailable(bench.without)
    attributes = {"window": sizes.window, "sinks": sizes.sinks, "scale": sizes.head_dim**-0.5}
    return BoundOperator(
        bench.library,
        SLIDING_WINDOW_ATTENTION,
        given,
        {**attributes, "norm_epsilon": epsilon},
    )


def heads_of(qkv: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor, Tensor]:
    """Packed rows as [1, heads, tokens, head_dim] each."""
    groups = [sizes.query_heads, sizes.kv_heads, sizes.kv_heads]
    split = qkv.unflatten(2, (-1, sizes.head_dim)).transpose(1, 2).split(groups, dim=1)
    return split[0].contiguous(), split[1].contiguous(), split[2].contiguous()


def visible(sizes: Sizes, query: Tensor, key: Tensor) -> Tensor:
    """Whether a query at a position sees the key at another."""
    return (key <= query) & ((query - key < sizes.window) | (key < sizes.sinks))


def masked(bench: Bench, sizes: Sizes, qkv: Tensor) -> Callable[[], Call]:
    """PyTorch's attention under an explicit mask."""

    def make() -> Call:
        tokens = qkv.shape[1]
        if tokens**2 > MOST_MASK_BYTES:
            raise Unavailable(f"its mask would take {format_bytes(tokens**2)}")
        q, k, v = heads_of(qkv, sizes)
        at = torch.arange(tokens, device=bench.device)
        mask = visible(sizes, at[:, None], at[None])
        return lambda: functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, enable_gqa=True
        )

    return make


def flexible(bench: Bench, sizes: Sizes, qkv: Tensor) -> Callable[[], Call]:
    """FlexAttention, compiled, with the blocks of the mask found beforehand."""

    def make() -> Call:
        tokens = qkv.shape[1]
        q, k, v = heads_of(qkv, sizes)
        # Uncompiled it writes the whole mask down before it finds the blocks.
        large = tokens > LARGE_MASK and not bench.rehearsal
        find_blocks = torch.compile(create_block_mask) if large else create_block_mask
        mask = find_blocks(
            lambda b, h, query, key: visible(sizes, query, key),
            *(None, None, tokens, tokens),
            device=str(bench.device),
        )
        attend = flex_attention if bench.rehearsal else torch.compile(flex_attention, dynamic=False)
        return lambda: attend(q, k, v, block_mask=mask, enable_gqa=True)

    return make


def full(bench: Bench, sizes: Sizes, qkv: Tensor) -> Callable[[], Call]:
    """FlashAttention over all tokens before: what a model without a window does."""

    def make() -> Call:
        q, k, v = heads_of(qkv, sizes)

        def call() -> Tensor:
            with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
                return functional.scaled_dot_product_attention(
                    q, k, v, is_causal=True, enable_gqa=True
                )

        return call

    return make


def agreement(bench: Bench, sizes: Sizes, tokens: int) -> None:
    """Do all compute the same? Without rotation and norms, which the others do not have."""
    given = inputs(sizes, tokens, 0, torch.float16, bench.device)
    given["inverse_frequencies"] = given["inverse_frequencies"][:0]
    ours = bind(bench, sizes, given, 0.0)
    ours.launch()
    got = ours.tensors["output"].double()
    for name, peer in (("SDPA, mask", masked), ("FlexAttention", flexible)):
        try:
            found = peer(bench, sizes, given["qkv"])()()
        except Exception as failure:  # reported; the race will meet it too
            bench.report.not_run(SECTION, f"agreement with {name}", str(failure)[:200])
            continue
        assert isinstance(found, Tensor)
        want = found.transpose(1, 2).flatten(2).double()
        error = ((got - want).square().mean() / want.square().mean()).sqrt().item()
        bench.report.add(SECTION, f"agreement with {name}, {tokens} tokens", relative_rms=error)


def prefill(bench: Bench, sizes: Sizes, tokens: int, dtype: torch.dtype) -> None:
    """A whole text in one call, against the same mask and against full attention."""
    element = str(dtype).removeprefix("torch.")
    given = inputs(sizes, tokens, 0, dtype, bench.device)
    qkv = given["qkv"]

    def ours() -> Call:
        return bind(bench, sizes, given, 1e-6).launch

    race = bench.watch.race(
        [
            Contender(OURS, ours),
            Contender("SDPA, mask", masked(bench, sizes, qkv)),
            Contender("FlexAttention", flexible(bench, sizes, qkv)),
            Contender("FlashAttention, full causal", full(bench, sizes, qkv)),
        ]
    )
    figures: dict[str, object] = {}
    if OURS in race.seconds:
        work = 4.0 * sizes.head_dim * sizes.query_heads * sizes.pairs(tokens)
        rate = work / race.median(OURS)
        figures = {"TFLOPS": rate / 1e12, "of matrix peak": bench.share(rate, element)}
    bench.report.race(SECTION, f"prefill {tokens} tokens {element} {sizes}", race, OURS, **figures)


def piece(bench: Bench, sizes: Sizes, tokens: int) -> None:
    """A piece in the middle of a text, as the runtime feeds it, against SDPA with a mask."""
    position = 10 * sizes.window
    given = inputs(sizes, tokens, position, torch.float16, bench.device)

    def ours() -> Call:
        return bind(bench, sizes, given, 1e-6).launch

    def peer() -> Call:
        q, k, v = heads_of(given["qkv"], sizes)
        keys = torch.cat([given["past_key"].clone(), k], dim=2)
        values = torch.cat([given["past_value"].clone(), v], dim=2)
        now = torch.arange(tokens, device=bench.device)[:, None] + position
        first = torch.arange(sizes.sinks, device=bench.device)
        rest = torch.arange(position - sizes.window, position + tokens, device=bench.device)
        mask = visible(sizes, now, torch.cat([first, rest])[None])
        return lambda: functional.scaled_dot_product_attention(
            q, keys, values, attn_mask=mask, enable_gqa=True
        )

    race = bench.watch.race([Contender(OURS, ours), Contender("SDPA, mask", peer)])
    figures: dict[str, object] = {}
    if OURS in race.seconds:
        rate = 4.0 * sizes.head_dim * sizes.query_heads * tokens * sizes.slots / race.median(OURS)
        figures = {"TFLOPS": rate / 1e12, "of matrix peak": bench.share(rate, "float16")}
    bench.report.race(SECTION, f"piece of {tokens} tokens {sizes}", race, OURS, **figures)


def decode(bench: Bench, sizes: Sizes) -> None:
    """One token with a full ring: bytes of keys and values that must be read."""
    position = 10 * sizes.slots
    traffic = 4 * sizes.kv_heads * sizes.slots * sizes.head_dim
    copies = 2 if bench.rehearsal else max(2, min(64, FLUSH_BYTES // traffic))

    def ours() -> Call:
        made = [
            bind(bench, sizes, inputs(sizes, 1, position, torch.float16, bench.device), 1e-6)
            for _ in range(copies)
        ]
        return partial(launch_all, made)

    def peer() -> Call:
        made = []
        for _ in range(copies):
            given = inputs(sizes, 1, position, torch.float16, bench.device)
            query = heads_of(given["qkv"], sizes)[0]
            made.append((query, given["past_key"], given["past_value"]))
        return lambda: [
            functional.scaled_dot_product_attention(q, k, v, enable_gqa=True) for q, k, v in made
        ]

    race = bench.watch.race([Contender(OURS, ours, copies), Contender("SDPA", peer, copies)])
    figures: dict[str, object] = {}
    if OURS in race.seconds:
        rate = traffic / race.median(OURS)
        figures = {"GBps": rate / 1e9, "of copy bandwidth": bench.share(rate, "copy")}
    bench.report.race(SECTION, f"decode float16 {sizes}", race, OURS, **figures)


def tasks(bench: Bench) -> list[Task]:
    """The most telling first."""
    if bench.rehearsal:
        small = Sizes(4, 2, 16, 20, 3)
        return [
            Task(SECTION, "agreement", 1, partial(agreement, sizes=small, tokens=64)),
            Task(
                SECTION, "prefill", 1, partial(prefill, sizes=small, tokens=64, dtype=torch.float16)
            ),
            Task(SECTION, "piece", 1, partial(piece, sizes=small, tokens=8)),
            Task(SECTION, "decode", 1, partial(decode, sizes=small)),
        ]
    made = [Task(SECTION, "agreement", 1, partial(agreement, sizes=Sizes(), tokens=4096))]
    for order, tokens in ((2, 8192), (2, 32768), (4, 4096), (5, 16384), (6, 65536), (6, 131072)):
        if bench.quick and order > 2:
            continue
        for sizes, dtype, later in (
            (Sizes(), torch.float16, 0),
            (Sizes(window=4096, sinks=128), torch.float16, 1),
            (Sizes(), torch.bfloat16, 6),
            (Sizes(9, 3, 64), torch.float16, 6),
            (Sizes(head_dim=256), torch.float16, 8),
        ):
            if bench.quick and later:
                continue
            run = partial(prefill, sizes=sizes, tokens=tokens, dtype=dtype)
            made.append(Task(SECTION, f"prefill {tokens} {sizes}", order + later, run))
    for window, order in ((1024, 2), (4096, 2), (8192, 5), (32768, 5)):
        for heads, later in (((16, 8, 128), 0), ((9, 3, 64), 5)):
            if bench.quick and order + later > 2:
                continue
            sizes = Sizes(*heads, window=window)
            made.append(
                Task(SECTION, f"decode {sizes}", order + later, partial(decode, sizes=sizes))
            )
    for tokens in (128, 512, 2048):
        if not bench.quick or tokens == 512:
            made.append(
                Task(SECTION, f"piece {tokens}", 3, partial(piece, sizes=Sizes(), tokens=tokens))
            )
    return made
