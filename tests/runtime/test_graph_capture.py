"""Decode replays a captured CUDA graph; extra runs, failures and threads leave no trace."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import stand_in
from native_library import needs_library
from runtime.fake_cuda import RUNS_OF_A_CAPTURE, FakeCuda, Fault, install, load_fake
from session_tools import DOCUMENT, read, state

from allmem_runtime import DeviceError, Model, OperatorLibraryError, SessionStateError, load
from allmem_runtime.engine import cuda_graph as decode
from allmem_runtime.engine import operators

IDS = [3 + (i * i + i // 7) % 300 for i in range(60)]
TOKENS = [5 + i * 7 % 290 for i in range(100)]


@pytest.fixture(scope="module")
def native(tiny_model_dir: Path) -> Model:
    return load(tiny_model_dir, device="cpu", operators="native", threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy whose token 0 changes the state: runs of a capture that are left in it show."""
    return stand_in.write(tmp_path_factory.mktemp("models") / "salted", salt=5)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Model:
    return load(folder, device="cpu", operators="portable", threads=1)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    device = install(monkeypatch)
    yield device
    assert len(device.threads) <= 1, "several threads touched the device"


def decoded(model: Model, tokens: list[int] = TOKENS) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """State and logits after a text and single tokens."""
    session = model.session()
    session.feed(IDS)
    rows = [session.feed([token], "last") for token in tokens]
    return state(session), np.stack([row for row in rows if row is not None])


def assert_same(model: Model, reference: Model, tokens: list[int] = TOKENS) -> None:
    (found, logits), (expected, wanted) = decoded(model, tokens), decoded(reference, tokens)
    np.testing.assert_array_equal(logits, wanted)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


# What is computed ---------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [TOKENS[:1], TOKENS], ids=["one token", "many tokens"])
def test_captured_decode_of_two_sets_equals_the_plain_one(
    plain: Model, fake: FakeCuda, folder: Path, tokens: list[int]
) -> None:
    model = load_fake(folder)
    assert model.engine.cuda_graph

    assert_same(model, plain, tokens)
    assert fake.counts["captures"] == 2  # one for each of two sets of buffers
    assert fake.counts["replays"] == len(tokens)


@needs_library
@pytest.mark.parametrize("tokens", [TOKENS[:1], TOKENS], ids=["one token", "many tokens"])
def test_captured_decode_in_place_equals_the_plain_one(
    native: Model, fake: FakeCuda, tiny_model_dir: Path, tokens: list[int]
) -> None:
    model = load_fake(tiny_model_dir, "native")
    assert model.session(undo=False).info()["memory_bytes"] == model.state_bytes

    assert_same(model, native, tokens)
    assert fake.counts["captures"] == 1


def test_without_graphs_no_step_has_a_graph_id(plain: Model, fake: FakeCuda, folder: Path) -> None:
    model = load_fake(folder, cuda_graph=False)

    assert_same(model, plain)
    assert not model.engine.cuda_graph and not fake.ids
    assert "enable_cuda_graph" not in fake.providers[0]


def test_pieces_are_never_captured(fake: FakeCuda, folder: Path) -> None:
    session = load_fake(folder).session()
    before = fake.counts.copy()

    read(session, DOCUMENT)
    session.feed([7])
    session.feed(IDS, "all")

    assert fake.counts["captures"] == before["captures"]
    assert fake.counts["replays"] == 0


def test_one_token_costs_two_numbers_in_and_one_row_out(fake: FakeCuda, folder: Path) -> None:
    model = load_fake(folder)
    session = model.session()
    session.feed(IDS)
    before = fake.counts.copy()

    session.feed([9], "last")

    row = 4 * model.manifest.backbone.vocab_size
    assert fake.counts - before == {
        "in": 2, "in bytes": 16, "out": 1, "out bytes": row, "replays": 1, "runs": 1,
    }  # fmt: skip


# Graphs and sessions ------------------------------------------------------------------------


def test_each_session_has_graph_ids_of_its_own(plain: Model, fake: FakeCuda, folder: Path) -> None:
    first, second = load_fake(folder), load_fake(folder)
    sessions = [first.session(), first.session(), second.session()]
    for session in sessions:
        for token in TOKENS[:2]:
            session.feed([token], "last")

    assert len(fake.ids) == len(set(fake.ids)) == 6
    assert decode.UNCAPTURED not in fake.ids
    for session in sessions:
        expected = plain.session()
        expected.feed(TOKENS[:2])
        for name, values in state(expected).items():
            np.testing.assert_array_equal(state(session)[name], values)


def test_sessions_one_after_the_other_share_a_graph(fake: FakeCuda, folder: Path) -> None:
    model = load_fake(folder)
    first = model.session()
    first.feed(IDS, "last")
    captures, allocated = fake.counts["captures"], len(fake.ids)
    for _ in range(5):
        session = model.session()
        assert all(not values.any() for values in state(session).values())
        session.feed([3], "last")
        del session
        gc.collect()

    assert fake.counts["captures"] == captures + 2  # the second at a time, and no third
    assert len(fake.ids) == allocated + 2


def test_buffers_of_a_session_that_lives_are_given_to_nobody(fake: FakeCuda, folder: Path) -> None:
    model = load_fake(folder)
    sessions = [model.session() for _ in range(3)]

    assert len({id(s._cursor._buffers) for s in sessions}) == 3


def test_session_may_be_used_by_one_thread_after_another(
    plain: Model, fake: FakeCuda, folder: Path
) -> None:
    session, expected = load_fake(folder).session(), plain.session()
    for token in TOKENS[:6]:
        thread = threading.Thread(target=session.feed, args=([token], "last"))
        thread.start()
        thread.join()
    expected.feed(TOKENS[:6])

    assert fake.counts["captures"] == 2
    for name, values in state(expected).items():
        np.testing.assert_array_equal(state(session)[name], values)


# Failures -----------------------------------------------------------------------------------


def test_capture_that_fails_at_loading_leaves_a_model_without_graphs(
    plain: Model, fake: FakeCuda, folder: Path
) -> None:
    fake.fail["capture"] = Fault("CUDA failure 901: capture invalidated.\nmore")

    model = load_fake(folder)

    assert not model.engine.cuda_graph
    assert "capturing failed (CUDA failure 901: capture invalidated)" in model.engine.notice
    assert [p.get("enable_cuda_graph") for p in fake.providers] == ["1", None]
    assert_same(model, plain)


def test_capture_that_fails_later_loses_nothing_of_any_session(
    plain: Model, fake: FakeCuda, folder: Path
) -> None:
    model = load_fake(folder)
    first = model.session()
    first.feed(IDS)
    kept = state(first)
    fake.fail["capture"] = Fault("CUDA failure 900")

    second = first.fork()
    del fake.fail["capture"]

    assert "capturing failed" in model.engine.notice
    for session in (first, second):
        for name, values in kept.items():
            np.testing.assert_array_equal(state(session)[name], values)
        expected = plain.session()
        expected.feed(IDS)
        for token in TOKENS[:3]:
            np.testing.assert_array_equal(
                session.feed([token], "last"), expected.feed([token], "last")
            )


def test_model_with_nodes_on_the_cpu_runs_without_graphs_and_names_them(
    plain: Model, fake: FakeCuda, folder: Path
) -> None:
    fake.on_cpu = ["Mod", "Range"]

    model = load_fake(folder)

    assert not model.engine.cuda_graph
    assert "without CUDA graphs" in model.engine.notice and "Mod, Range" in model.engine.notice
    assert_same(model, plain)


def test_step_that_fails_is_a_session_error_and_can_be_taken_back(
    fake: FakeCuda, folder: Path
) -> None:
    session = load_fake(folder).session()
    session.feed(IDS)
    session.checkpoint()
    kept = state(session)
    fake.fail["run"] = Fault("CUDA failure 719: unspecified launch failure")
    with pytest.raises(SessionStateError, match="unspecified launch failure"):
        session.feed([4], "last")
    del fake.fail["run"]

    session.rollback()

    for name, values in kept.items():
        np.testing.assert_array_equal(state(session)[name], values)


# Copies of a state --------------------------------------------------------------------------


def test_fork_and_rollback_stay_on_the_device(fake: FakeCuda, folder: Path) -> None:
    model = load_fake(folder)
    session = model.session()
    session.feed(IDS)
    model.session()  # its buffers serve the fork
    gc.collect()
    before = fake.counts.copy()
    fork = session.fork()
    session.checkpoint()
    session.rollback()

    moved = fake.counts - before
    assert moved["within bytes"] == 3 * model.state_bytes
    assert moved["out bytes"] < model.state_bytes / 100  # it only waits for the copies
    for name, values in state(session).items():
        np.testing.assert_array_equal(state(fork)[name], values)


def test_older_runtime_that_cannot_copy_on_the_device_copies_through_the_host(
    fake: FakeCuda, folder: Path
) -> None:
    fake.fail["copy within"] = TypeError("incompatible function arguments")
    session = load_fake(folder).session()
    session.feed(IDS)

    fork = session.fork()

    for name, values in state(session).items():
        np.testing.assert_array_equal(state(fork)[name], values)


# Device memory ------------------------------------------------------------------------------

EXHAUSTED = Fault("Available memory of 0 is smaller than requested bytes of 2048")


def test_limit_reaches_onnx_runtime(fake: FakeCuda, folder: Path) -> None:
    load_fake(folder, device_memory=1 << 30)

    assert fake.providers[0]["gpu_mem_limit"] == str(1 << 30)
    assert fake.providers[0]["arena_extend_strategy"] == "kSameAsRequested"


@pytest.mark.parametrize("when", ["load", "run", "capture and run"])
def test_model_that_does_not_fit_is_a_device_error(fake: FakeCuda, folder: Path, when: str) -> None:
    fake.fail.update(dict.fromkeys(when.split(" and "), EXHAUSTED))

    with pytest.raises(DeviceError, match="limit of 512 MiB .--device-memory.") as caught:
        load_fake(folder, device_memory=512 << 20)
    assert "Allow more" in caught.value.hint


def test_longest_piece_is_tried_at_loading(fake: FakeCuda, folder: Path) -> None:
    load_fake(folder, cuda_graph=False)

    assert fake.counts["runs"] == 1


def test_memory_that_ends_in_a_step_names_limit_and_remedy(fake: FakeCuda, folder: Path) -> None:
    session = load_fake(folder, device_memory=512 << 20).session()
    fake.fail["run"] = EXHAUSTED

    with pytest.raises(SessionStateError, match="limit of 512 MiB") as caught:
        session.feed(IDS)
    assert "rollback" in caught.value.hint and "Allow more" in caught.value.hint


def test_no_room_for_another_session_is_a_device_error(fake: FakeCuda, folder: Path) -> None:
    model = load_fake(folder)
    first = model.session()
    fake.fail["allocate"] = Fault("Failed to allocate memory for requested buffer of size 4096")

    with pytest.raises(DeviceError, match="no room for a session: .* exhausted") as caught:
        model.session()
    assert "Close a session" in caught.value.hint
    first.feed(IDS)


# Kernels ------------------------------------------------------------------------------------


def test_blank_state_is_blank_after_a_capture(fake: FakeCuda, folder: Path) -> None:
    model = load_fake(folder)
    sessions = [model.session() for _ in range(2)]

    for session in sessions:
        for tensors in session._cursor._buffers._sets:
            assert not any(tensors.read(name).any() for name in tensors.values)


@needs_library
def test_library_without_cuda_kernels_gives_way_and_says_how_to_get_them(
    fake: FakeCuda, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "cuda_kernels", lambda library: ())

    model = load_fake(tiny_model_dir, "auto")

    assert model.operators == "portable"
    assert "without CUDA kernels" in model.engine.notice
    assert "ALLMEM_CUDA=ON" in model.engine.notice
    with pytest.raises(OperatorLibraryError, match="ALLMEM_CUDA=ON"):
        load_fake(tiny_model_dir, "native")


def test_a_capture_runs_the_model_more_than_once(fake: FakeCuda, folder: Path) -> None:
    # The premise of this file: were it once only, its tests could not fail.
    before = fake.counts["runs"]
    load_fake(folder)

    assert fake.counts["runs"] == before + 1 + 2 * RUNS_OF_A_CAPTURE
