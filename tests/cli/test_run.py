"""allmem-run reads, answers, saves and goes on; what cannot be meant is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import TEXT, Command, assert_same_state, finished, process

from allmem_runtime.cli.prompt_answers import tell_ending
from allmem_runtime.generation.sampling import Sampling

SHORT = ("--max-tokens", 6, "--device", "cpu", "--operators", "portable")
EVENTS: dict[str, set[str]] = {
    "start": {
        "model", "device", "device_reason", "operators", "cuda_graph", "threads",
        "prepared", "notices",
        "state_bytes", "position", "resumed",
    },
    "notice": {"text"},
    "reading": {
        "source", "read_bytes", "size", "tokens", "position", "tokens_per_second", "seconds_left",
        "state_bytes", "replaced",
    },
    "saved": {"path", "bytes"},
    "text": {"prompt", "text"},
    "answer": {
        "prompt", "question", "text", "finish_reason", "position", "seconds_to_first_text",
        "seconds", "passages",
    },
    "text_failure": {"message"},
    "sources": {"sources"},
    "pause": {"position"},
    "interrupted": {"position"},
    "error": {"message", "hint", "exit_code"},
}  # fmt: skip
EVENTS["read"] = EVENTS["reading"]


def test_answers_go_to_stdout_and_everything_else_to_stderr(
    command: Command, tiny_model_dir: Path, document: Path
) -> None:
    result = command("allmem-run", tiny_model_dir, document, "--prompt", "Who?", *SHORT)
    assert result.code == 0
    assert result.out
    for word in ("Größe.txt", "state", "constant", "> Who?"):
        assert word in result.err
        assert word not in result.out


def test_nothing_is_said_of_the_device_where_there_is_nothing_to_do(
    command: Command, tiny_model_dir: Path, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (tiny_model_dir, document, "--prompt", "Who?", "--max-tokens", 2)
    problem = "this test has none"
    monkeypatch.setattr("allmem_runtime.model.probe_cuda", lambda index: problem)
    for card in (None, "Some card"):
        monkeypatch.setattr("allmem_runtime.model.find_cuda_device", lambda index, c=card: c)
        result = command("allmem-run", *arguments)
        assert result.code == 0
        assert (problem in result.err, "on cpu" in result.err) == (bool(card), False)


def test_quiet_leaves_the_answers_alone(
    command: Command, tiny_model_dir: Path, document: Path
) -> None:
    arguments = (tiny_model_dir, document, "--prompt", "Who?", *SHORT)
    loud = command("allmem-run", *arguments)
    quiet = command("allmem-run", *arguments, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, loud.out, "")


def test_json_gives_one_event_a_line_of_the_documented_form(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    result = command(
        "allmem-run", tiny_model_dir, document, "--prompt", "Who?", "--prompt", "Where?",
        "--json", "--session", tmp_path / "s.allmem", *SHORT,
    )  # fmt: skip
    assert result.code == 0
    assert result.out.isascii()
    for event in result.events:
        assert set(event) == EVENTS[event["event"]] | {"event"}
    assert result.events[0]["event"] == "start"
    read = result.of("read")[0]
    size = document.stat().st_size
    assert (read["source"], read["size"], read["read_bytes"]) == ("Größe.txt", size, size)
    answers = result.of("answer")
    assert [a["question"] for a in answers] == ["Who?", "Where?"]
    for answer in answers:
        pieces = [e["text"] for e in result.of("text") if e["prompt"] == answer["prompt"]]
        assert answer["text"] == "".join(pieces)
    assert result.of("saved")[0]["bytes"] == (tmp_path / "s.allmem").stat().st_size


def test_an_empty_answer_and_one_that_was_cut_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    tell_ending(" \n", "end", Sampling())
    assert "the answer is empty" in capfd.readouterr().err
    tell_ending("word", "end", Sampling())
    assert capfd.readouterr().err == ""
    tell_ending("word", "length", Sampling(max_tokens=1))
    assert capfd.readouterr().err == "(cut after 1 token; --max-tokens allows more)\n"
    tell_ending(" \n", "length", Sampling(max_tokens=2))
    said = "(the answer is empty: no word in 2 tokens; --max-tokens allows more)\n"
    assert capfd.readouterr().err == said, "the model did not end it"


def test_another_encoding_is_told_and_can_be_overruled(
    command: Command, tiny_model_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("船库的钥匙挂在走廊里，在钟的后面。\n".encode("gb18030") * 20)
    result = command("allmem-run", tiny_model_dir, path, *SHORT)
    assert "a.txt is not in UTF-8; it is read as gb18030" in result.err
    forced = command("allmem-run", tiny_model_dir, path, "--encoding", "utf-8", *SHORT)
    assert "invalid bytes replaced" in forced.err and "gb18030" not in forced.err
    for name in ("klingon", "idna", "punycode"):
        refused = command("allmem-run", tiny_model_dir, path, "--encoding", name, *SHORT)
        assert refused.code == 2 and f"There is no encoding '{name}'" in refused.err
    unmarked = command("allmem-run", tiny_model_dir, path, "--encoding", "utf-16", *SHORT)
    assert "does not start with BOM. Name another --encoding." in unmarked.err


def test_a_question_does_not_change_what_was_read(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    asked, silent = tmp_path / "a.allmem", tmp_path / "b.allmem"
    for session, prompt in ((asked, ("--prompt", "?")), (silent, ())):
        result = command(
            "allmem-run", tiny_model_dir, document, "--session", session, *prompt, *SHORT
        )
        assert result.code == 0, result.err
    assert_same_state(asked, silent)


def test_the_same_command_again_reads_nothing_again(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    session = tmp_path / "s.allmem"
    arguments = (tiny_model_dir, document, "--session", session, "--prompt", "Who?", "--json")
    first = command("allmem-run", *arguments, *SHORT)
    written = session.read_bytes()
    second = command("allmem-run", *arguments, *SHORT)
    assert second.code == 0
    assert second.of("reading") == second.of("saved") == []
    assert session.read_bytes() == written
    assert [a["text"] for a in second.of("answer")] == [a["text"] for a in first.of("answer")]


def test_more_sources_are_added_to_a_session(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.md"
    other.write_text("# Another text\n" * 20)
    step, once = tmp_path / "step.allmem", tmp_path / "once.allmem"
    command("allmem-run", tiny_model_dir, document, "--session", step, *SHORT)
    result = command(
        "allmem-run", tiny_model_dir, document, other, "--session", step, "--json", *SHORT
    )
    assert [e["source"] for e in result.of("read")] == ["other.md"]
    command("allmem-run", tiny_model_dir, document, other, "--session", once, *SHORT)
    assert_same_state(step, once)


def test_a_source_that_was_changed_is_refused_and_the_session_kept(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    document.write_text(TEXT * 840, encoding="utf-8")  # more than its beginning is recognized by
    session = tmp_path / "s.allmem"
    command("allmem-run", tiny_model_dir, document, "--session", session, *SHORT)
    written = session.read_bytes()
    document.write_text(TEXT * 839 + TEXT.upper(), encoding="utf-8")  # its end, no byte longer
    result = command("allmem-run", tiny_model_dir, document, "--session", session, *SHORT)
    assert result.code == 1
    assert "was changed since it was read" in result.err
    assert "--session" in result.err
    assert session.read_bytes() == written
    arguments = (tiny_model_dir, document, "--session", session, "--json", *SHORT)
    skipped = command("allmem-run", *arguments, "--changed", "skip")
    assert skipped.of("read") == [] and skipped.of("sources")[0]["sources"][0]["state"] == "changed"
    anew = command("allmem-run", *arguments, "--changed", "read")
    assert [event["source"] for event in anew.of("read")] == [document.name]
    assert command("allmem-run", *arguments).of("read") == []
    assert len(json.loads(command("allmem", "info", session, "--json").out)["sources"]) == 2


def test_each_of_several_sources_is_known_when_the_command_comes_again(
    command: Command, tiny_model_dir: Path, tmp_path: Path
) -> None:
    session, once = tmp_path / "s.allmem", tmp_path / "once.allmem"
    for name in "acd":
        (tmp_path / f"{name}.txt").write_text(f"# Text {name}\n" * 30)
    arguments = ("--session", session, "--json", *SHORT)
    paths = [tmp_path / f"{name}.txt" for name in "abcd"]
    command("allmem-run", tiny_model_dir, paths[0], paths[2], paths[3], *arguments)
    paths[1].write_text("# Text b\n" * 30)
    with paths[0].open("a") as file:
        file.write("More of a.\n")
    paths[3].unlink()
    result = command("allmem-run", tiny_model_dir, *paths, *arguments)
    assert result.code == 0, result.err
    states = {row["source"]: row["state"] for row in result.of("sources")[0]["sources"]}
    assert states == {"a.txt": "grown", "b.txt": "new", "c.txt": "unchanged", "d.txt": "gone"}
    assert [event["source"] for event in result.of("read")] == ["a.txt", "b.txt"]
    told = " ".join(event["text"] for event in result.of("notice"))
    for words in ("c.txt was read before", "a.txt has grown", "d.txt is gone"):
        assert words in told
    forked = tmp_path / "fork.allmem"
    assert command("allmem", "fork", session, "--as", forked).code == 0
    again = command("allmem-run", tiny_model_dir, *paths, "--session", forked, "--json", *SHORT)
    assert again.of("read") == []
    out = command("allmem", "info", session).out
    assert "a.txt, 281 bytes, read to its end" in out and "d.txt, 270 bytes" in out
    assert str(tmp_path) not in session.read_bytes().decode("latin-1")
    command("allmem-run", tiny_model_dir, *paths[:3], "--session", once, *SHORT)
    assert len(json.loads(command("allmem", "info", once, "--json").out)["sources"]) == 3


def test_an_empty_file_among_others_is_named_and_left_out(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").touch()
    result = command("allmem-run", tiny_model_dir, tmp_path / "empty.txt", document, *SHORT)
    assert result.code == 0 and "empty.txt is empty; left out." in result.err
    assert f"read {document.name}" in result.err


def test_standard_input_is_a_source_and_is_recognized_again(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    data = document.read_bytes()
    file, pipe = tmp_path / "f.allmem", tmp_path / "p.allmem"
    command("allmem-run", tiny_model_dir, document, "--session", file, *SHORT)
    command("allmem-run", tiny_model_dir, "-", "--session", pipe, *SHORT, stdin=data)
    assert_same_state(file, pipe)
    again = command(
        "allmem-run", tiny_model_dir, "-", "--session", pipe, "--json", *SHORT, stdin=data
    )
    assert again.code == 0
    assert again.of("reading") == []


def test_text_piped_in_is_read_without_being_named(tiny_model_dir: Path, document: Path) -> None:
    running = process("allmem-run", tiny_model_dir, "--prompt", "Who?", "--json", *SHORT)
    result = finished(running, document.read_bytes())
    assert result.code == 0
    assert result.of("read")[0]["source"] == "standard input"


def test_an_empty_pipe_that_nobody_named_is_no_error(tiny_model_dir: Path) -> None:
    running = process("allmem-run", tiny_model_dir, "--prompt", "Who?", *SHORT)
    result = finished(running, b"")
    assert (result.code, "error" in result.err) == (0, False)


def test_the_model_can_be_named_by_its_graph_and_run_by_the_umbrella_command(
    command: Command, tiny_model_dir: Path, document: Path
) -> None:
    by_folder = command("allmem-run", tiny_model_dir, document, "--prompt", "Who?", *SHORT)
    by_graph = command(
        "allmem", "run", tiny_model_dir / "model.onnx", document, "--prompt", "Who?", *SHORT
    )
    assert (by_graph.code, by_graph.out) == (0, by_folder.out)


def test_sampling_options_are_used(command: Command, tiny_model_dir: Path, document: Path) -> None:
    arguments = (tiny_model_dir, document, "--prompt", "Who?", "--json", "--temperature", 5.0)
    one = command("allmem-run", *arguments, "--seed", 1, *SHORT).of("answer")[0]["text"]
    same = command("allmem-run", *arguments, "--seed", 1, *SHORT).of("answer")[0]["text"]
    other = command("allmem-run", *arguments, "--seed", 2, *SHORT).of("answer")[0]["text"]
    assert one == same != other
    stopped = command("allmem-run", *arguments, "--seed", 1, "--stop", one[1], *SHORT)
    answer = stopped.of("answer")[0]
    assert (answer["text"], answer["finish_reason"]) == (one[: one.index(one[1])], "stop")


def test_a_system_text_opens_the_conversation_once(
    command: Command, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    arguments = (tiny_model_dir, document, "--session", tmp_path / "s", "--system", "Be brief.")
    with_system = command("allmem-run", *arguments, "--json", *SHORT).of("read")[0]["position"]
    without = command("allmem-run", tiny_model_dir, document, "--json", *SHORT).of("read")[0]
    assert with_system > without["position"]
    again = command("allmem-run", *arguments, "--prompt", "Who?", *SHORT)
    assert again.code == 0
    assert "not given again" in again.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["--nope"], 2, "No such option", id="unknown option"),
        pytest.param(["DOC", "--temperature", "nan"], 2, "temperature", id="NaN temperature"),
        pytest.param(["DOC", "--top-k", "x"], 2, "--top-k", id="not a number"),
        pytest.param(["DOC", "--max-tokens", "0"], 2, "1 or more", id="no tokens"),
        pytest.param(["DOC", "--top-p", "0"], 2, "above 0 and at most 1.", id="no share"),
        pytest.param(["DOC", "--seed", "-1"], 2, "to 9,223,372,036,854,775,807.", id="no seed"),
        pytest.param(["DOC", "--stop", ""], 2, "stop", id="empty stop"),
        pytest.param(["DOC", "--prompt", " "], 2, "--prompt", id="empty prompt"),
        pytest.param(["DOC", "--pause", "1"], 2, "--stream", id="pause without stream"),
        pytest.param(["DOC", "--stream", "--pause", "0"], 2, "--pause", id="no pause"),
        pytest.param(["DOC", "--stream", "--pause", "nan"], 2, "--pause", id="NaN pause"),
        pytest.param(["-", "-"], 2, "twice", id="standard input twice"),
        pytest.param([""], 2, "A SOURCE is empty", id="a source without a name"),
        pytest.param([], 2, "nothing to do", id="nothing to do"),
        pytest.param(["DOC", "--device", "tpu"], 2, "tpu", id="unknown device"),
        pytest.param(["DOC", "--threads", "0"], 2, "threads", id="no threads"),
        pytest.param(["DOC", "--device-memory", "much"], 2, "4GiB", id="no size"),
        pytest.param(
            ["DOC", "--device", "cpu", "--device-memory", "4GiB"],
            2,
            "device memory is for a CUDA device",
            id="device memory of the CPU",
        ),
        pytest.param(
            ["DOC", "--device", "cpu", "--cuda-graph"],
            2,
            "CUDA graphs are for a CUDA device",
            id="CUDA graphs on the CPU",
        ),
        pytest.param(["DOC", "--operators", "magic"], 1, "magic", id="unknown operators"),
        pytest.param(["missing.txt"], 1, "missing.txt", id="missing source"),
        pytest.param(["--session", "no.allmem", "--prompt", "a"], 1, "no.allmem", id="no session"),
        pytest.param(["DOC", "--session", "/no/folder/s"], 1, "/no/folder", id="no folder"),
        pytest.param(["DOC", "--session", "."], 1, "directory", id="session is a folder"),
        pytest.param(["DOC", "--session", "DOC"], 1, "session file", id="session is a text"),
    ],
)
def test_what_cannot_be_meant_is_one_line_on_stderr_and_an_exit_code(
    command: Command, tiny_model_dir: Path, document: Path, arguments: list[str], code: int,
    says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    given = [str(document) if a == "DOC" else a for a in arguments]
    result = command("allmem-run", tiny_model_dir, *given, "--quiet")
    assert result.code == code
    assert result.out == ""
    assert result.err.startswith("allmem-run: error: ")
    assert result.err.count("\n") == 1
    assert says in result.err
    assert document.read_text(encoding="utf-8") == TEXT * 40


def test_an_error_is_an_event_too(command: Command, tiny_model_dir: Path) -> None:
    result = command("allmem-run", tiny_model_dir, "missing.txt", "--json")
    assert result.code == 1
    assert [set(e) for e in result.events] == [EVENTS["error"] | {"event"}]
    assert result.events[0]["exit_code"] == 1


def test_a_session_of_another_model_is_refused(
    command: Command, tiny_model_dir: Path, other_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    session = tmp_path / "s.allmem"
    command("allmem-run", tiny_model_dir, document, "--session", session, *SHORT)
    result = command("allmem-run", other_model_dir, "--session", session, "--prompt", "a", *SHORT)
    assert result.code == 1
    assert "was saved with the model" in result.err


@pytest.mark.parametrize("locale", ["C", "tr_TR.UTF-8", "en_US.ISO-8859-1"])
def test_no_locale_spoils_paths_or_answers(
    locale: str, tiny_model_dir: Path, document: Path, tmp_path: Path
) -> None:
    environment = {"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    encoding = {"PYTHONIOENCODING": "ascii:strict"} if locale == "C" else {}
    running = process(
        "allmem-run", tiny_model_dir, document, "--prompt", "Wo? 👩‍🚀", "--session",
        tmp_path / "ß.allmem", *SHORT, env={**environment, **encoding},
    )  # fmt: skip
    result = finished(running)
    assert result.code == 0, result.err
    assert "Traceback" not in result.err
    assert (tmp_path / "ß.allmem").exists()


def test_whoever_stops_listening_gets_no_traceback(tiny_model_dir: Path, document: Path) -> None:
    running = process(
        "allmem-run", tiny_model_dir, document, "--json", "--prompt", "Who?",
        "--max-tokens", 4000, "--device", "cpu",
    )  # fmt: skip
    assert running.stdout is not None and running.stderr is not None and running.stdin is not None
    running.stdin.close()
    running.stdout.readline()
    running.stdout.close()
    err = running.stderr.read().decode()
    assert running.wait(60) == 1
    assert "Traceback" not in err
    assert "Broken pipe" not in err
    running.stderr.close()


def test_no_torch_is_imported(tiny_model_dir: Path, document: Path) -> None:
    import subprocess
    import sys

    program = (
        "import sys\nfrom allmem_runtime.cli import run_main\n"
        "try: run_main(sys.argv[1:])\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "assert not {'torch', 'transformers', 'onnx', 'allmem_exporters'} & set(sys.modules)"
    )
    arguments: list[Any] = [tiny_model_dir, document, "--prompt", "a", *SHORT]
    subprocess.run(
        [sys.executable, "-c", program, *(str(a) for a in arguments)],
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
