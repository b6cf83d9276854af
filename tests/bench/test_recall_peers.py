"""RULER's prompts put to llama.cpp: equal tokens, pairs, going on, bytes, and the files' places."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from runtime.fake_ruler import write_fake

from allmem_runtime.cli.evaluate import evaluate
from allmem_runtime.errors import UsageError
from allmem_runtime.evaluation.blank_memory import EvaluationSession
from allmem_runtime.files.package import open_package
from allmem_runtime.text.tokenizer import Tokenizer
from benchmarks.recall_peers.__main__ import main, parser, put
from benchmarks.recall_peers.ours import read
from benchmarks.recall_peers.report import BYTES
from benchmarks.recall_peers.rows import Cache, measured, rows_of

TOKEN = {"f16": 128, "q8_0": 68, "q4_0": 36}
"""Bytes of a token in the stand-in's caches."""


class StandIn:
    """A llama.cpp that says the reference of a prompt if its cache is whole."""

    version = "stand-in 1"

    def __init__(self, tokenizer: Tokenizer, fixed: int = 0) -> None:
        self._tokenizer, self._fixed = tokenizer, fixed
        self.asked: list[dict[str, Any]] = []
        self.said: set[int] = set()
        self.renamed: dict[int, str] = {}

    def tell(self, **request: Any) -> dict[str, Any]:
        if request["do"] == "bytes":
            return {"bytes": self._fixed + TOKEN[request["cache"]] * request["cells"]}
        if request["do"] == "names":
            names = {token: self._tokenizer.names([token])[0] for token in request["ids"]}
            return {"names": list({**names, **self.renamed}.values())}
        self.asked.append(request)
        words = self._tokenizer.decode(request["ids"]).split("The number is ")
        said = words[1].split(".")[0] if not request["size"] and len(words) > 1 else "nothing"
        answer = self._tokenizer.encode_text(said, "text")[: request["most"]]
        if not request["size"]:
            self.said.add(len(answer))
        return {
            "answer": answer, "held": len(request["ids"]), "shifts": 0,
            "reading_seconds": 1.0, "answering_seconds": 0.5,
        }  # fmt: skip


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of RULER's outline."""

    def forget() -> None:
        for name in [n for n in sys.modules if n.startswith("long_context_eval")]:
            del sys.modules[name]

    monkeypatch.syspath_prepend(str(write_fake(tmp_path / "packages")))
    forget()
    yield
    forget()


Evaluated = Callable[..., tuple[Path, list[list[int]]]]


@pytest.fixture
def evaluated(
    package: None, toy_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Evaluated:
    """Runs `allmem eval ruler`; its file, and the tokens it read before each answer."""

    def run(*options: object) -> tuple[Path, list[list[int]]]:
        path, prompts = tmp_path / "ours.jsonl", []
        fed: list[int] = []
        feed, reset = EvaluationSession.feed, EvaluationSession.reset

        def listen(self: EvaluationSession, ids: Any, **given: Any) -> Any:
            fed.extend(ids)
            if given and len(ids) > 1:
                prompts.append(list(fed))
            return feed(self, ids, **given)

        def blank(self: EvaluationSession) -> None:
            fed.clear()
            reset(self)

        monkeypatch.setattr(EvaluationSession, "feed", listen)
        monkeypatch.setattr(EvaluationSession, "reset", blank)
        arguments = [
            "ruler", f"allmem={toy_dir}", "--tasks", "niah_single_1,qa_1", "--lengths", "300,500",
            "--samples", "2", "--device", "cpu", "--operators", "portable", "--json", path,
            *options,
        ]  # fmt: skip
        done = CliRunner().invoke(evaluate, [str(a) for a in arguments], standalone_mode=False)
        assert done.exception is None, done.exception
        return path, prompts

    return run


@pytest.fixture
def peer(toy_dir: Path) -> StandIn:
    return StandIn(Tokenizer.from_file(toy_dir / "tokenizer.json"))


@pytest.fixture
def options(toy_dir: Path, tmp_path: Path) -> Callable[..., argparse.Namespace]:
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"weights")

    def made(ours: Path, *more: object) -> argparse.Namespace:
        given = [gguf, "--ruler", ours, "--tokenizer", toy_dir, "--rows", "f16,shifted",
                 "--json", tmp_path / "peers.jsonl", "--cache-bytes", "16KiB", *more]  # fmt: skip
        return parser().parse_args([str(a) for a in given])

    return made


Options = Callable[..., argparse.Namespace]


def answers(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["kind"] == "result"]


@pytest.mark.parametrize("style", [(), ("--format", "text"), ("--answer-prefix", "user")])
def test_llama_gets_the_tokens_that_our_rows_have_read(
    style: tuple[str, ...], evaluated: Evaluated, options: Options, peer: StandIn
) -> None:
    path, fed = evaluated(*style)
    put(options(path, "--rows", "f16"), peer)
    assert len(fed) == 8
    assert [request["ids"] for request in peer.asked] == fed
    assert {request["most"] for request in peer.asked} == {4}
    assert {tuple(request["ends"]) for request in peer.asked} == {(2,)}


def test_rows_are_paired_by_prompt_and_stand_in_one_table(
    evaluated: Evaluated, options: Options, peer: StandIn, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    path, _ = evaluated()
    chosen = options(path, "--tasks", "niah_single_1")
    put(chosen, peer)
    kept = answers(chosen.json)
    prompts = {r["prompt"] for r in answers(path) if r["task"] == "niah_single_1"}
    assert len(kept) == 8 and {record["prompt"] for record in kept} == prompts
    scores = {record["row"]: [] for record in kept}
    for record in kept:
        scores[record["row"]].append(record["score"])
    assert scores == {"llama.cpp f16": [100.0] * 4, "llama.cpp f16 shifted at 128": [0.0] * 4}
    table = json.loads(chosen.json.read_text().splitlines()[-1])
    assert table["tables"][0]["rows"]["llama.cpp f16"]["300"] == {
        "mean": 100.0, "standard_error": 0.0, "count": 2,
    }  # fmt: skip
    assert table["bytes"]["llama.cpp f16 shifted at 128"] == {"300": 16 << 10, "500": 16 << 10}
    whole = [r["tokens"] for r in kept if r["column"] == "500" and r["context"] is None]
    sizes = [tokens + said for tokens in whole for said in peer.said]
    assert table["bytes"]["llama.cpp f16"]["500"] == 128 * max(sizes)
    said = capsys.readouterr().out
    assert "points above 'allmem'" in said and BYTES in said
    names = [line.split("  ")[0] for line in said.splitlines() if line.startswith(("all", "lla"))]
    assert "allmem" in names[:3]


def test_the_same_command_goes_on_where_it_stopped(
    evaluated: Evaluated, options: Options, peer: StandIn
) -> None:
    path, _ = evaluated()
    chosen = options(path)
    put(chosen, peer)
    asked = len(peer.asked)
    assert asked == 16
    lines = chosen.json.read_text().splitlines(keepends=True)
    chosen.json.write_text("".join(lines[:6]) + lines[6][:20])
    put(chosen, peer)
    assert len(peer.asked) == asked + 11
    assert [key(r) for r in answers(chosen.json)] == [key(json.loads(x)) for x in lines[1:17]]
    put(options(path, "--keep", "5"), peer)
    assert len(peer.asked) == asked + 11 + 8  # only the shifted row keeps tokens


def key(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record[name] for name in ("row", "task", "column", "sample", "prompt", "score"))


def test_nothing_begins_when_the_time_is_over(
    evaluated: Evaluated, options: Options, peer: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = evaluated()
    put(options(path, "--minutes", "0"), peer)
    assert not peer.asked
    assert "unfinished: all rows have answered 0 of 8 prompts" in capsys.readouterr().err


def test_prompts_that_no_row_of_ours_has_answered_are_left_out(
    evaluated: Evaluated, options: Options, peer: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = evaluated()
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], '{"kind": "resu']))
    before = path.read_bytes()
    put(options(path, "--tasks", "niah_single_1,qa_1", "--lengths", "300,500"), peer)
    assert len(peer.asked) == 2 * 2
    assert "2 prompts were answered by no row of ours" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_file_with_another_vocabulary_is_refused(
    evaluated: Evaluated, options: Options, peer: StandIn
) -> None:
    path, _ = evaluated()
    peer.renamed[2] = "</s>"
    with pytest.raises(UsageError, match="Token 2 is .* here and '</s>' in the GGUF file"):
        put(options(path), peer)
    assert not peer.asked


def test_prompts_of_another_number_of_tokens_are_refused(
    evaluated: Evaluated, options: Options, peer: StandIn
) -> None:
    path, _ = evaluated()
    path.write_text(path.read_text().replace('"tokens": ', '"tokens": 1'))
    with pytest.raises(UsageError, match="tokens here and 1"):
        put(options(path), peer)


def test_results_of_two_settings_are_refused(evaluated: Evaluated) -> None:
    path, _ = evaluated("--samples", "1")
    evaluated("--samples", "1", "--seed", "7")
    with pytest.raises(UsageError, match="results of 2 settings"):
        read(path)


def test_of_two_models_under_one_name_the_last_counts(
    evaluated: Evaluated, make_toy: Callable[..., Path]
) -> None:
    path, _ = evaluated("--samples", "1")
    lines = path.read_text().splitlines()
    other = json.loads(lines[1])
    other["model"] = "another"
    path.write_text("\n".join([*lines, json.dumps(other), ""]))
    ours = read(path)
    assert ours.models == {"allmem": "another"} and len(ours.records) == 1


@pytest.mark.parametrize("content", ["", "no lines of ours\n", '{"format": "allmem-eval-1"}\n'])
def test_a_file_without_results_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match="holds no results of `allmem eval ruler`"):
        read(path)


def test_bytes_choose_how_many_tokens_a_shifted_row_holds(peer: StandIn) -> None:
    rows = rows_of(peer, ["f16", "shifted", "shifted-q4_0"], [1 << 16, 1 << 17], 64)
    assert [(row.name, row.size, row.keep) for row in rows] == [
        ("llama.cpp f16", 0, 0),
        ("llama.cpp f16 shifted at 512", 512, 64),
        ("llama.cpp f16 shifted at 1,024", 1024, 64),
        ("llama.cpp q4_0 shifted at 1,820", 1820, 64),
        ("llama.cpp q4_0 shifted at 3,640", 3640, 64),
    ]
    assert rows[1].bytes(9) == rows[1].bytes(10**6) == 1 << 16
    assert rows[0].bytes(3) == 3 * 128
    assert (1 << 16) - 36 < rows[3].bytes(0) <= 1 << 16


def test_layers_with_a_window_are_told_from_the_others(toy_dir: Path) -> None:
    tokenizer = Tokenizer.from_file(toy_dir / "tokenizer.json")
    cache = measured(StandIn(tokenizer, fixed=1 << 20), "f16")
    assert cache == Cache("f16", 1 << 20, 128.0)
    assert cache.tokens((1 << 20) + 10 * 128) == 10 and cache.tokens(5) == 0


@pytest.mark.parametrize(
    ("names", "budget", "says"),
    [(["f32"], 1 << 20, "'f32'"), (["f16", "f16"], 1 << 20, "'f16'"),
     (["shifted"], 67 * 128, "67 tokens, too few to keep 64")],
)  # fmt: skip
def test_rows_that_cannot_be_are_refused(
    names: list[str], budget: int, says: str, peer: StandIn
) -> None:
    with pytest.raises(UsageError, match=says):
        rows_of(peer, names, [budget], 64)


def test_without_bytes_a_shifted_row_gets_those_of_our_state(
    evaluated: Evaluated, options: Options, peer: StandIn, toy_dir: Path
) -> None:
    path, _ = evaluated("--samples", "1")
    chosen = options(path, "--tasks", "qa_1", "--keep", "0")
    chosen.cache_bytes = []
    chosen.rows = ["shifted"]
    put(chosen, peer)
    state = open_package(toy_dir).manifest.state.nbytes
    assert {request["size"] for request in peer.asked} == {state // 128}


def test_a_python_without_llama_cpp_is_said(options: Options, tmp_path: Path) -> None:
    given = [str(options(tmp_path / "model.gguf").gguf), "--ruler", __file__, "--tokenizer", "."]
    with pytest.raises(SystemExit, match="llama.cpp cannot go on: .*llama_cpp"):
        main(given)
