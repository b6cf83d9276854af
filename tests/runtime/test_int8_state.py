"""Sessions of a model that keeps keys and values as int8: saved, forked, checked like others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from session_tools import DOCUMENT, assert_same, read, state

from allmem_runtime import Model, SessionFileError, SessionStateError, load
from allmem_runtime.info import model_info
from allmem_runtime.spec import past_name


@pytest.fixture(scope="module")
def model(tiny_checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    from allmem_exporters.onnx.export import export

    folder = tmp_path_factory.mktemp("int8") / "model"
    export(tiny_checkpoint_dir, folder, kv="int8", check=False)
    return load(folder, device="cpu", threads=1)


def test_state_is_smaller_and_its_parts_say_so(model: Model, tiny_model_dir: Path) -> None:
    ours, wide = (model_info(path)["state"] for path in (model.package.folder, tiny_model_dir))
    assert (ours["cache"], wide["cache"]) == ("int8", "float16")
    for part in ("key", "value"):
        assert ours["parts"][part] * 2 == wide["parts"][part]
    rows = 2 * ours["parts"]["key"] // model.manifest.backbone.head_dim
    assert ours["parts"]["scale"] == 4 * rows
    assert ours["bytes"] == sum(ours["parts"].values())


def test_saved_session_goes_on_as_if_it_had_not_been_closed(model: Model, tmp_path: Path) -> None:
    session = read(model.session(), DOCUMENT)
    session.save(tmp_path / "a.allmem")
    again = model.open(tmp_path / "a.allmem")
    assert_same(session, again)
    assert any(values.dtype == np.int8 and values.any() for values in state(again).values())
    assert session.ask("Where is the key?") == again.ask("Where is the key?")
    assert_same(session, again)


def test_fork_does_not_touch_what_it_came_from(model: Model) -> None:
    session = read(model.session(), DOCUMENT)
    before = state(session)
    read(session.fork(), "Something else altogether.")
    for name, values in state(session).items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)


def test_scale_that_is_no_number_is_found_before_anything_is_saved(
    model: Model, tmp_path: Path
) -> None:
    session = read(model.session(), "A few words.")
    name = past_name(1, "scale")
    scales = session._cursor.tensors.read(name).copy()
    scales[..., 0] = np.nan
    session._cursor.tensors.write(name, scales)
    with pytest.raises(SessionStateError, match=r"past\.1\.scale"):
        session.save(tmp_path / "a.allmem")
    assert not (tmp_path / "a.allmem").exists()


def test_session_of_a_float16_ring_is_refused(
    model: Model, tiny_model_dir: Path, tmp_path: Path
) -> None:
    other = load(tiny_model_dir, device="cpu", threads=1)
    read(other.session(), "A few words.").save(tmp_path / "wide.allmem")
    with pytest.raises(SessionFileError, match="state layout"):
        model.open(tmp_path / "wide.allmem")
