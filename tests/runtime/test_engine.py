"""The engine runs a real model with native or portable operators, in place where that is proved."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_library import needs_library
from session_tools import DOCUMENT, read, state

from allmem_ops.library import LIBRARY_VARIABLE
from allmem_runtime import DeviceError, Model, ModelFileError, OperatorLibraryError, Sampling, load
from allmem_runtime.engine import engine as step
from allmem_runtime.engine import operators
from allmem_runtime.engine.devices import Device

IDS = [3 + (i * i + i // 7) % 300 for i in range(100)]


@pytest.fixture(scope="module")
def portable(tiny_model_dir: Path) -> Model:
    return load(tiny_model_dir, device="cpu", operators="portable", threads=1)


@pytest.fixture(scope="module")
def native(tiny_model_dir: Path) -> Model:
    return load(tiny_model_dir, device="cpu", operators="native", threads=1)


def relative_rms(found: np.ndarray, wanted: np.ndarray) -> float:
    f, w = found.astype(np.float64), wanted.astype(np.float64)
    return float(np.sqrt(np.mean((f - w) ** 2) / max(np.mean(w**2), 1e-30)))


def assert_close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    for name, values in wanted.items():
        # Sums in float32 taken in another order; a value on the edge of two float16 numbers
        # may fall to either side, which is 5e-4 of that value and far less of the whole.
        assert relative_rms(found[name], values) < 1e-4, name


@needs_library
def test_native_operators_agree_with_the_portable_ones(native: Model, portable: Model) -> None:
    a, b = native.session(), portable.session()
    first, second = a.feed(IDS, "all"), b.feed(IDS, "all")
    assert first is not None and second is not None

    assert native.operators == "native" and portable.operators == "portable"
    # The same equations in float32, summed in another order over two layers.
    assert relative_rms(first, second) < 1e-5
    assert_close(state(a), state(b))


@needs_library
def test_native_state_is_renewed_in_place_and_the_portable_one_is_not(
    native: Model, portable: Model
) -> None:
    assert native.session(undo=False).info()["memory_bytes"] == native.state_bytes
    assert portable.session(undo=False).info()["memory_bytes"] == 2 * portable.state_bytes


@needs_library
def test_graph_of_other_nodes_is_never_renewed_in_place(toy_dir: Path) -> None:
    toy = load(toy_dir, device="cpu", operators="native")
    assert toy.session(undo=False).info()["memory_bytes"] == 2 * toy.state_bytes


@needs_library
def test_session_moves_between_native_and_portable(
    native: Model, portable: Model, tmp_path: Path
) -> None:
    session = read(native.session(), DOCUMENT)
    session.save(tmp_path / "s.allmem")

    answer = portable.open(tmp_path / "s.allmem").ask("Who?", sampling=Sampling(max_tokens=4))

    assert answer == session.ask("Who?", sampling=Sampling(max_tokens=4))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30))
@pytest.mark.parametrize("kind", ["portable", pytest.param("native", marks=needs_library)])
def test_any_split_of_the_tokens_gives_the_same_state(
    request: pytest.FixtureRequest, kind: str, sizes: list[int]
) -> None:
    model: Model = request.getfixturevalue(kind)
    whole, split = model.session(undo=False), model.session(undo=False)
    expected = whole.feed(IDS, "all")
    rows, at = [], 0
    for size in [*sizes, len(IDS)]:
        part = IDS[at : at + size]
        at += size
        if part:
            rows.append(split.feed(part, "all"))
    assert expected is not None

    # Another cutting is another order of summation, nothing else.
    assert relative_rms(np.concatenate(rows), expected) < 1e-5
    assert_close(state(split), state(whole))


def test_fork_of_double_buffers_is_right_after_odd_and_even_steps(portable: Model) -> None:
    session = portable.session()
    for token in IDS[:5]:
        session.feed([token])
        fork = session.fork()
        for name, values in state(session).items():
            np.testing.assert_array_equal(state(fork)[name], values)
        expected = session.fork().feed([7], "last")
        np.testing.assert_array_equal(fork.feed([7], "last"), expected)


def test_all_nodes_run_where_the_model_was_sent(portable: Model) -> None:
    assert list(portable.engine.providers()) == ["CPUExecutionProvider"]


def test_zero_rows_cost_no_logits(portable: Model) -> None:
    engine = portable.engine
    logits = engine.run(engine.buffers(), np.array([5, 6]), 0, np.zeros(0, np.int64))

    assert logits.shape == (0, portable.manifest.backbone.vocab_size)


# Which operators ------------------------------------------------------------------------------


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, str(tmp_path / "missing.so"))


def test_auto_goes_on_without_a_library_and_says_so(
    tiny_model_dir: Path, no_library: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "allmem_runtime"):
        model = load(tiny_model_dir, device="cpu", operators="auto")

    assert model.operators == "portable"
    assert "missing.so" in model.engine.notice
    assert "portable operators" in caplog.text


def test_native_without_a_library_is_an_error(tiny_model_dir: Path, no_library: None) -> None:
    with pytest.raises(OperatorLibraryError, match=r"missing\.so") as caught:
        load(tiny_model_dir, device="cpu", operators="native")
    assert "--operators portable" in caught.value.hint


@pytest.mark.parametrize("content", [None, b"", b"text", b"\x7fELF" + b"\0" * 60])
def test_file_that_is_no_library_is_an_error(
    tiny_model_dir: Path, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "library.so"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OperatorLibraryError, match=r"library\.so"):
        load(tiny_model_dir, device="cpu", operators=str(path))


@pytest.mark.parametrize(
    "wanted", [{"TTTMemory": 2}, {"Unknown": 1}], ids=["newer version", "unknown operator"]
)
def test_library_of_another_contract_is_not_used(wanted: dict[str, int]) -> None:
    found = operators.find_library("auto", wanted)
    assert isinstance(found, str) and "this package does not know" in found


@pytest.fixture
def memory_on_the_wrong_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU would be seen with a library that has CPU kernels only."""

    def found(device: Device, providers: dict[str, list[str]]) -> list[str]:
        names = [name for part in providers.values() for name in part]
        return [name for name in names if name == "ai.allmem:TTTMemory"]

    monkeypatch.setattr(step, "misplaced", found)


@needs_library
def test_library_without_kernels_for_the_device_gives_way_to_the_portable_operators(
    tiny_model_dir: Path, memory_on_the_wrong_device: None
) -> None:
    model = load(tiny_model_dir, device="cpu", operators="auto")

    assert model.operators == "portable"
    assert "ai.allmem:TTTMemory would run on the CPU" in model.engine.notice
    with pytest.raises(OperatorLibraryError, match="TTTMemory would run on the CPU"):
        load(tiny_model_dir, device="cpu", operators="native")


def test_work_on_the_wrong_device_is_an_error(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "misplaced", lambda *_: ["MatMul"])

    with pytest.raises(DeviceError, match="MatMul would run on the CPU"):
        load(tiny_model_dir, device="cpu", operators="portable")


def test_model_that_needs_the_library_says_so_without_it(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    del model.functions[:]
    (folder / "model.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(ModelFileError, match="does not load") as caught:
        load(folder, device="cpu", operators="portable")
    assert "native operators" in caught.value.hint
