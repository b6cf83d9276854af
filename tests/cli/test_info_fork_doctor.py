"""What info, fork and doctor say, and the umbrella command around them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import TEXT, Command

from allmem_runtime.files import snapshot
from allmem_runtime.passages.store import Store

SHORT = ("--device", "cpu", "--operators", "portable", "--max-tokens", 4)


@pytest.fixture
def session(command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path) -> Path:
    """A session that has read a document."""
    path = tmp_path / "read.allmem"
    result = command("allmem-run", tiny_model_dir, document, "--session", path, *SHORT)
    assert result.code == 0, result.err
    return path


def test_info_tells_a_model_in_numbers(command: Command, tiny_model_dir: Path) -> None:
    result = command("allmem", "info", tiny_model_dir, "--json")
    info = json.loads(result.out)
    assert info["kind"] == "model"
    assert info["state"]["bytes"] == sum(info["state"]["parts"].values())
    # Window 24 and sinks 4, 2 layers, 2 heads of 8, 2 bytes each.
    assert info["state"]["parts"]["key"] == 28 * 2 * 2 * 8 * 2
    # Keys and values, 2 layers, 2 heads of 8, 2 bytes each.
    assert info["full_attention"] == [
        {"tokens": tokens, "bytes": tokens * 2 * 2 * 2 * 8 * 2}
        for tokens in (37_000, 128_000, 1_000_000)
    ]
    weights = (tiny_model_dir / "model.onnx.data").stat().st_size
    assert info["weights"]["bytes"] == weights + (tiny_model_dir / "model.onnx").stat().st_size


def test_info_tells_people_the_same(command: Command, tiny_model_dir: Path) -> None:
    out = command("allmem", "info", tiny_model_dir).out
    for words in ("whatever the length", "1,000,000 tokens", "fast weights", "TTTMemory 1"):
        assert words in out


@pytest.mark.parametrize("group", [(), ("eval",)])
def test_a_group_without_a_command_prints_its_help_as_it_stands(
    command: Command, group: tuple[str, ...]
) -> None:
    result = command("allmem", *group)
    lines = (result.out + result.err).splitlines()
    assert lines[0].startswith(f"Usage: {' '.join(('allmem', *group))} [OPTIONS] COMMAND")
    assert "Commands:" in lines


def test_info_of_a_session_says_what_was_read_and_what_is_inside(
    command: Command, session: Path, document: Path
) -> None:
    info = json.loads(command("allmem", "info", session, "--json").out)
    assert info["kind"] == "session"
    assert info["source"]["read_bytes"] == document.stat().st_size
    assert info["source"]["finished"] is True
    assert info["parent"] is None
    assert info["inside"]["text"] is False
    out = command("allmem", "info", session).out
    assert "read to its end" in out
    assert "no text" in out


def test_a_session_file_and_its_description_hold_no_text(
    command: Command, tiny_model_dir: Path, tmp_path: Path
) -> None:
    canary = "The password is quetzalcoatl-7491836205."
    secret = tmp_path / "secret.txt"
    secret.write_text(TEXT * 3 + canary)
    path = tmp_path / "s.allmem"
    run = command("allmem-run", tiny_model_dir, secret, "--session", path, *SHORT)
    described = command("allmem", "info", path)
    for data in (path.read_bytes(), run.err.encode(), described.out.encode()):
        assert b"quetzalcoatl" not in data
        assert b"7491836205" not in data


def test_info_does_not_load_the_model(tiny_model_dir: Path, tmp_path: Path) -> None:
    # A graph that ONNX Runtime would refuse: its weights are gone.
    copy = shutil.copytree(tiny_model_dir, tmp_path / "copy")
    data = copy / "model.onnx.data"
    data.write_bytes(b"\xff" * data.stat().st_size)
    program = "from allmem_runtime.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", program, "info", copy], capture_output=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", ["missing", "text.txt", "empty.allmem", "."])
def test_info_of_anything_else_is_an_error(command: Command, path: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("just text, and not even short")
    (tmp_path / "empty.allmem").touch()
    result = command("allmem", "info", tmp_path / path)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("allmem: error: ")
    assert result.err.count("\n") == 1


def test_where_neither_model_nor_session_is_the_hint_names_both(
    command: Command, tmp_path: Path
) -> None:
    err = command("allmem", "info", tmp_path / "read.allmem").err
    assert "There is no" in err and "model folder" in err and "saved session" in err


@pytest.mark.parametrize(
    "arguments", [["fork", "none", "--as", "x"], ["fork", "--nope"], ["fork", "a"], ["info"]]
)
def test_every_error_of_a_command_begins_alike(command: Command, arguments: list[str]) -> None:
    err = command("allmem", *arguments).err
    assert err.startswith("allmem: error: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["info", ""], ["fork", "", "--as", "x"], ["fork", "a", "--as", ""], ["run", "", "a.txt"],
     ["run", "m", "a.txt", "--session", ""], ["doctor", ""], ["export", "", "x"]],
)  # fmt: skip
def test_an_empty_path_is_refused_and_not_taken_for_this_folder(
    command: Command, arguments: list[str]
) -> None:
    result = command("allmem", *arguments)
    assert result.code == 2 and "path is empty" in result.err


def test_a_fork_is_of_one_state_and_its_text_though_the_session_is_replaced_meanwhile(
    command: Command, session: Path, tiny_model_dir: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    more, fork, old = tmp_path / "more.txt", tmp_path / "fork.allmem", session.read_bytes()
    more.write_text(TEXT * 5)
    backup = Store.copy

    def replaced_before(store: Store, path: Path) -> Store:
        copy = backup(store, path)
        command("allmem-run", tiny_model_dir, more, "--session", session, *SHORT)
        return copy

    monkeypatch.setattr(Store, "copy", replaced_before)
    assert command("allmem", "fork", session, "--as", fork).code == 0
    assert session.read_bytes() != old
    info = json.loads(command("allmem", "info", fork, "--json").out)
    assert (info["text"]["failure"], info["text"]["sources"]) == ("", ["Größe.txt"])
    assert [row["name"] for row in info["sources"]] == ["Größe.txt"]


def test_a_fork_is_the_same_state_with_its_parent_noted(
    command: Command, session: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    written = session.read_bytes()
    fork = tmp_path / "fork.allmem"
    assert command("allmem", "fork", session, "--as", fork).code == 0
    assert session.read_bytes() == written
    old, new = snapshot.read_header(session), snapshot.read_header(fork)
    assert new.metadata["parent"] == old.digest
    assert new.digest != old.digest
    assert new.metadata["tensors"] == old.metadata["tensors"]
    assert fork.stat().st_mode & 0o077 == 0
    arguments = ("--prompt", "Who?", *SHORT)
    answers = [
        command("allmem-run", tiny_model_dir, "--session", path, *arguments).out
        for path in (session, fork)
    ]
    assert answers[0] == answers[1] != ""


def test_a_fork_never_overwrites(command: Command, session: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.allmem"
    other.write_text("precious")
    result = command("allmem", "fork", session, "--as", other)
    assert (result.code, other.read_text()) == (2, "precious")
    assert command("allmem", "fork", session).code == 2


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_a_damaged_session_is_not_forked(
    command: Command, session: Path, tmp_path: Path, share: float
) -> None:
    data = bytearray(session.read_bytes())
    data[int(share * len(data))] ^= 1
    session.write_bytes(data)
    fork = tmp_path / "fork.allmem"
    result = command("allmem", "fork", session, "--as", fork)
    assert result.code == 1
    assert not fork.exists()
    assert not list(tmp_path.glob(".*"))


def test_doctor_checks_the_machine(command: Command) -> None:
    result = command("allmem", "doctor")
    names = [line.split()[1] for line in result.out.splitlines()]
    assert names[:5] == ["runtime", "cpu", "passages", "cuda", "operators"]
    assert all(line.split()[0] in ("ok", "warn", "fail") for line in result.out.splitlines())


def test_doctor_checks_a_model_and_json_says_the_same(
    command: Command, tiny_model_dir: Path
) -> None:
    result = command("allmem", "doctor", tiny_model_dir, "--json")
    report = json.loads(result.out)
    assert set(report) == {"ok", "checks"}
    assert all(set(check) == {"name", "status", "detail"} for check in report["checks"])
    status = {check["name"]: check["status"] for check in report["checks"]}
    assert status["model"] == status["model, portable"] == "ok"
    assert report["ok"] == ("fail" not in status.values())
    assert result.code == (0 if report["ok"] else 1)


def test_doctor_finds_a_model_with_a_changed_file(
    command: Command, tiny_model_dir: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(tiny_model_dir, tmp_path / "copy")
    data = bytearray((copy / "model.onnx.data").read_bytes())
    data[100] ^= 1
    (copy / "model.onnx.data").write_bytes(data)
    result = command("allmem", "doctor", copy)
    assert result.code == 1
    assert "model.onnx.data" in result.out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["--version"], 0), ([], 2), (["nope"], 2), (["info"], 2),
     (["run", "--help"], 0), (["doctor", "--nope"], 2)],
    ids=str,
)  # fmt: skip
def test_the_umbrella_command_has_the_usual_manners(
    command: Command, arguments: list[str], code: int
) -> None:
    result = command("allmem", *arguments)
    assert result.code == code
    assert "Traceback" not in result.err
    if code:
        assert result.err.strip()


def test_the_exporters_are_named_with_the_others_and_imported_on_use_only(
    command: Command,
) -> None:
    out = command("allmem", "--help").out
    for verb in ("run", "info", "fork", "doctor", "convert", "export"):
        assert f"  {verb} " in out


@pytest.mark.parametrize("missing", ["torch", "allmem_exporters"])
def test_missing_export_packages_are_named_with_the_remedy(missing: str, tmp_path: Path) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\nfrom allmem_runtime.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, "export", tmp_path, tmp_path / "out"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "pip install 'allmem-runtime[export]'" in result.stderr
    assert missing in result.stderr
    assert "Traceback" not in result.stderr
