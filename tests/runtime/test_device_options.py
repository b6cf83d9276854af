"""Options of a device: sizes are understood or refused, and nothing is ignored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from allmem_runtime import Model, UsageError, load
from allmem_runtime.engine.cuda_driver import CudaDevice, find_cuda_device, has_kernels
from allmem_runtime.engine.devices import choose
from allmem_runtime.engine.memory_limit import device_bytes, exhausted, is_exhausted
from allmem_runtime.engine.piece_limits import check_piece

NONE = np.zeros(0, np.int64)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4GiB", 4 << 30),
        ("4G", 4 << 30),
        ("4gb", 4 << 30),
        (" 512 MiB ", 512 << 20),
        ("1.5g", 3 << 29),
        ("2048K", 2 << 20),
        ("1TiB", 1 << 40),
        ("4294967296", 4 << 30),
        ("4294967296B", 4 << 30),
        (4 << 30, 4 << 30),
    ],
)
def test_device_memory_is_understood(text: str | int, count: int) -> None:
    assert device_bytes(text) == count


@pytest.mark.parametrize(
    "text",
    ["", "much", "-1GiB", "4 GiB 2", "4XB", "GiB", "0", "1023K", "1.5", "4iB", "9" * 12 + "T",
     "1e9", "٤GiB", 0, -5, True],
)  # fmt: skip
def test_what_is_no_size_is_refused_with_an_example(text: str | int) -> None:
    with pytest.raises(UsageError, match="device memory limit") as caught:
        device_bytes(text)
    assert "4GiB" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param({"cuda_graph": True}, "CUDA graphs are for a CUDA device", id="graphs"),
        pytest.param({"device_memory": "4GiB"}, "device memory is for a CUDA device", id="memory"),
        pytest.param({"device_memory": "plenty"}, "is no size", id="no size"),
    ],
)
def test_options_of_cuda_are_refused_on_the_cpu(
    toy_dir: Path, options: dict[str, str | bool], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        load(toy_dir, device="cpu", **options)  # type: ignore[arg-type]


def test_doing_without_graphs_may_be_asked_of_any_device(toy_dir: Path) -> None:
    assert not load(toy_dir, device="cpu", cuda_graph=False).engine.cuda_graph


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CUDA failure 2: out of memory ; GPU=0", True),
        ("Available memory of 12 is smaller than requested bytes of 99", True),
        ("Failed to allocate memory for requested buffer of size 4096", True),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", True),
        ("CUDA failure 209: no kernel image is available", False),
        ("indices element out of data bounds", False),
    ],
)
def test_errors_of_too_little_memory_are_known(text: str, expected: bool) -> None:
    assert is_exhausted(RuntimeError(text)) is expected


def test_without_a_limit_none_is_named() -> None:
    assert "limit" not in " ".join(exhausted(None, "cuda:0"))


@pytest.mark.parametrize(
    ("count", "position", "rows", "says"),
    [
        (0, 0, [], "0 tokens"),
        (1, -1, [], "position -1"),
        (1, -48, [], "position -48"),
        (49, 0, [], "49 tokens at position 0 cross"),
        (2, 47, [], "2 tokens at position 47 cross"),
        (48, 97, [], "48 tokens at position 97 cross"),
        (3, 0, [3], "row 3"),
        (3, 0, [-1], "row -1"),
    ],
)
def test_piece_that_no_kernel_may_see_is_refused_before_it_runs(
    toy: Model, count: int, position: int, rows: list[int], says: str
) -> None:
    buffers = toy.engine.buffers()
    ids = np.ones(count, np.int64)
    with pytest.raises(UsageError, match=says):
        toy.engine.run(buffers, ids, position, np.array(rows, np.int64))
    assert not any(buffers.current.read(name).any() for name in buffers.current.values)


@pytest.mark.parametrize(("count", "position"), [(1, 0), (48, 0), (48, 96), (1, 47), (5, 43)])
def test_piece_up_to_the_end_of_its_chunk_is_fed(count: int, position: int) -> None:
    check_piece(48, np.zeros(count, np.int64), position, NONE)


# Cards --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architectures", "capability", "expected"),
    [
        (("sm_80", "sm_86"), "8.6", True),
        (("sm_80",), "8.9", True),
        (("sm_86",), "8.0", False),
        (("sm_75", "sm_80"), "9.0", False),
        (("sm_75", "compute_80"), "9.0", True),
        (("compute_120",), "9.0", False),
        (("sm_90a", "compute_120"), "12.0", True),
        ((), "8.6", False),
    ],
)
def test_kernels_run_on_cards_of_their_generation_or_are_compiled_for_later_ones(
    architectures: tuple[str, ...], capability: str, expected: bool
) -> None:
    assert has_kernels(architectures, CudaDevice("Some card", capability, 1 << 30)) is expected


def test_card_that_nobody_knows_is_given_the_benefit_of_the_doubt() -> None:
    assert has_kernels(("sm_86",), None)
    assert not has_kernels((), None)


def test_choice_of_a_card_tells_its_name() -> None:
    card = CudaDevice("Some card", "8.6", 8 << 30)
    for wanted in ("auto", "cuda:1"):
        device = choose(wanted, lambda index: None, lambda index: card)
        assert "Some card, compute capability 8.6, 8.0 GiB" in device.why


def test_machine_without_a_driver_has_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allmem_runtime.engine.cuda_driver._LIBRARY", "libno-such-driver.so")
    assert find_cuda_device(0) is None
