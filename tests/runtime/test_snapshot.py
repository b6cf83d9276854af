"""A saved session opens as what it was, with its own model, or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from session_tools import DOCUMENT, SHORT, assert_same, fed_tokens, read, state

from allmem_runtime import Model, SessionFileError, SessionStateError
from allmem_runtime.files import snapshot


def test_restored_session_is_the_saved_one(toy: Model, tmp_path: Path) -> None:
    session = read(toy.session(), DOCUMENT)
    session.ask("Who?", sampling=SHORT)
    session.save(tmp_path / "s.allmem")

    restored = toy.open(tmp_path / "s.allmem")

    assert_same(restored, session)
    assert restored.info()["seed"] == session.info()["seed"]


def test_restored_session_processes_only_new_tokens(toy: Model, tmp_path: Path) -> None:
    session = read(toy.session(), DOCUMENT)
    session.save(tmp_path / "s.allmem")
    restored = toy.open(tmp_path / "s.allmem")

    with fed_tokens() as after_restore:
        first = restored.ask("Who?", sampling=SHORT)
    with fed_tokens() as uninterrupted:
        second = session.ask("Who?", sampling=SHORT)

    assert after_restore == uninterrupted
    assert len(after_restore) < 40 < session.position
    assert first == second


def test_other_programs_can_read_the_container(toy: Model, tmp_path: Path) -> None:
    session = read(toy.session(), DOCUMENT)
    session.save(tmp_path / "s.allmem")

    with safetensors.safe_open(tmp_path / "s.allmem", "np") as file:
        assert file.metadata()["model_name"] == "stand-in"
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    expected = state(session)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


def test_header_tells_what_is_inside_without_the_model(toy: Model, tmp_path: Path) -> None:
    session = read(toy.session(), DOCUMENT)
    session.save(tmp_path / "s.allmem")

    header = snapshot.read_header(tmp_path / "s.allmem")

    assert header.model_name == "stand-in"
    assert header.data_bytes == toy.state_bytes
    assert header.place(toy.manifest.backbone.vocab_size).position == session.position


def test_files_know_their_parents(toy: Model, tmp_path: Path) -> None:
    def header(name: str) -> snapshot.Header:
        return snapshot.read_header(tmp_path / name)

    session = read(toy.session(), DOCUMENT)
    session.save(tmp_path / "one.allmem")
    fork = toy.open(tmp_path / "one.allmem").fork()
    fork.ask("Who?", sampling=SHORT)
    fork.save(tmp_path / "two.allmem")

    assert header("one.allmem").metadata["parent"] == ""
    assert header("two.allmem").metadata["parent"] == header("one.allmem").digest


def test_file_is_for_its_owner_only(toy: Model, tmp_path: Path) -> None:
    path = tmp_path / "s.allmem"
    path.write_text("old")
    path.chmod(0o644)

    toy.session().save(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_file_holds_no_text_of_the_document(toy: Model, tmp_path: Path) -> None:
    session = read(toy.session(), "The canary sings at seven. " * 200)
    session.ask("What does the canary do?", sampling=SHORT)
    session.save(tmp_path / "s.allmem")

    data = (tmp_path / "s.allmem").read_bytes()
    assert b"canary" not in data
    assert "canary".encode("utf-16-le") not in data


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["past.0.key", "past.1.conv_tail"])
def test_state_that_is_not_finite_never_replaces_a_good_one(
    toy: Model, tmp_path: Path, name: str, bad: float
) -> None:
    session = toy.session()
    path = tmp_path / "s.allmem"
    session.save(path)
    good = path.read_bytes()
    session._cursor.tensors.read(name).flat[0] = bad

    with pytest.raises(SessionStateError, match=f"{name} holds a value that is not finite"):
        session.save(path)

    assert path.read_bytes() == good
    assert os.listdir(tmp_path) == ["s.allmem"]


def test_session_of_another_model_is_refused_naming_both(
    toy: Model, other_toy: Model, tmp_path: Path
) -> None:
    toy.session().save(tmp_path / "s.allmem")

    with pytest.raises(SessionFileError) as caught:
        other_toy.open(tmp_path / "s.allmem")
    for part in ("s.allmem", "'stand-in'", "'other'", toy.package.digest[:12]):
        assert part in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model": "0" * 64}, "graph 000000000000"),
        ({"tokenizer": "0" * 64}, "tokenizer 000000000000"),
        ({"operators": {"TTTMemory": 2}}, 'operator versions {"TTTMemory": 2}'),
    ],
)
def test_every_mismatch_is_named(
    toy: Model, tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    import dataclasses

    from allmem_runtime.session.session_state import _owner

    toy.session().save(tmp_path / "s.allmem")
    header = snapshot.read_header(tmp_path / "s.allmem")

    with pytest.raises(SessionFileError) as caught:
        header.check(dataclasses.replace(_owner(toy), **change), toy.manifest.state)
    assert what in caught.value.message


def test_other_state_layout_is_named(toy: Model, tmp_path: Path) -> None:
    import stand_in

    from allmem_runtime.session.session_state import _owner

    toy.session().save(tmp_path / "s.allmem")
    header = snapshot.read_header(tmp_path / "s.allmem")

    with pytest.raises(SessionFileError, match="state layout"):
        header.check(_owner(toy), stand_in.manifest({}, window=63).state)


def test_newer_format_is_refused_by_its_number(toy: Model, tmp_path: Path) -> None:
    path = tmp_path / "s.allmem"
    toy.session().save(path)
    path.write_bytes(path.read_bytes().replace(b'"format_version":"1"', b'"format_version":"2"'))

    with pytest.raises(SessionFileError, match="format version '2'; this runtime reads 1"):
        toy.open(path)
