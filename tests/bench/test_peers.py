"""The comparison with other systems: its order, its arithmetic, its workers, and what it says."""

from __future__ import annotations

import json
import stat
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from allmem_runtime.bench.texts import Text
from allmem_runtime.files.package import open_package
from benchmarks.peers import contenders, files, limit, llama_bench, report, rounds, start
from benchmarks.peers.__main__ import main, merged, phases
from benchmarks.peers.child import Child, Gone
from benchmarks.peers.contenders import GENAI, LLAMA, LLAMA_HALF, LLAMA_TOOL, OURS, TORCH

PLAN = rounds.Plan(prompt=20, question=5, written=2, rounds=2)
SIZES = {"prompt": 20, "written": 2}
TESTS = [
    {"n_prompt": 20, "n_gen": 0, "avg_ns": 4_000_000_000},
    {"n_prompt": 0, "n_gen": 2, "avg_ns": 2_000_000_000},
]


def soon() -> float:
    return time.monotonic() + 60


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    """A llama-bench that has measured already."""
    path = tmp_path / "llama-bench"
    path.write_text(f"#!{sys.executable}\nprint({json.dumps(TESTS)!r})\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def ours(tiny_model_dir: Path) -> contenders.Contender:
    return contenders.Contender(OURS, "ours", sys.executable, tiny_model_dir)


def test_the_most_telling_comes_first() -> None:
    order = list(phases([0, 8192, 32768], set(contenders.ORDER)))
    assert order == [
        (0, [OURS, LLAMA, LLAMA_TOOL, GENAI, TORCH]),
        (8192, [OURS, LLAMA, GENAI, TORCH]),
        (32768, [OURS, LLAMA]),
        (0, [OURS, LLAMA_HALF]),
        (8192, [OURS, LLAMA_HALF]),
        (32768, [OURS, GENAI, TORCH, LLAMA_HALF]),
    ]


def test_the_tool_goes_deep_where_there_is_nothing_else_of_llama() -> None:
    order = list(phases([8192, 32768], {OURS, LLAMA_TOOL}))
    assert order == [(8192, [OURS, LLAMA_TOOL]), (32768, [OURS, LLAMA_TOOL])]


def test_ratios_are_those_of_the_same_round() -> None:
    found = rounds.ratios([1.0, 2.0, 4.0], [2.0, 4.0, 16.0])
    assert found is not None
    assert (found.median, found.lowest, found.highest) == (2.0, 2.0, 4.0)
    assert rounds.ratios([1.0], []) is None


def test_a_worker_measures_and_takes_back_what_it_measured(
    ours: contenders.Contender, tiny_model_dir: Path
) -> None:
    child = Child(sys.executable, "ours", tiny_model_dir, 1, 100, soon())
    try:
        assert "onnxruntime" in child.version
        assert child.ask(do="read", ids=[5, 6, 7]) > 0
        child.ask(do="mark")
        assert child.ask(do="prompt", ids=[1] * 20) > 0
        assert child.ask(do="write", token=4, count=2) > 0
        assert child.memory().resident > 0
        with pytest.raises(Gone, match="no such request"):
            child.ask(do="sing")
    finally:
        child.close()


@pytest.mark.parametrize(
    ("module", "words"),
    [("no_such_system", "ModuleNotFoundError"), ("ours", "ModelFileError")],
)
def test_a_system_that_cannot_start_says_why(module: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(Gone, match=words):
        Child(sys.executable, module, tmp_path, 1, 100, soon())


class Reader:
    """A worker's place that tells what it was asked to do."""

    version = "1"
    asked: ClassVar[list[str]] = []

    def __init__(self, *given: object) -> None:
        self.asked.append("start")

    def ask(self, **request: Any) -> float:
        self.asked.append(request["do"])
        if request["do"] == "keep":
            Path(request["path"]).write_text("a state")
        return 1.0

    def may_take_until(self, deadline: float) -> None: ...

    def memory(self) -> None: ...

    def close(self) -> None: ...


def test_what_a_peer_has_read_is_kept_for_the_next_time_of_the_same_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rounds, "Child", Reader)
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"weights")
    peer = contenders.Contender(LLAMA, "llama_library", sys.executable, gguf)
    plan = replace(PLAN, rounds=1, readings=tmp_path / "readings")

    def asked(text: list[int], depth: int = 10) -> tuple[list[str], float | None]:
        Reader.asked.clear()
        figures = rounds.measure([peer], plan, Text("text", text), depth, soon())[0]
        assert not figures.problem
        return [
            what for what in Reader.asked if what in ("read", "keep", "resume")
        ], figures.reading

    assert asked([3, 4]) == (["read", "keep"], 1.0)
    assert asked([3, 4]) == (["resume"], None)
    assert asked([3, 5]) == (["read", "keep"], 1.0)
    assert asked([3, 4], 20) == (["read", "keep"], 1.0)
    assert asked([3, 4], 0) == ([], None)
    gguf.write_bytes(b"other weights")
    assert asked([3, 4]) == (["read", "keep"], 1.0)
    assert not list((tmp_path / "readings").glob(".*"))


def test_a_worker_is_not_waited_for_past_the_deadline(tiny_model_dir: Path) -> None:
    with pytest.raises(Gone, match="no time was left"):
        Child(sys.executable, "ours", tiny_model_dir, 1, 100, time.monotonic() + 0.01)


def test_systems_take_turns_and_one_that_fails_is_said(
    ours: contenders.Contender, tool: Path, tmp_path: Path
) -> None:
    others = [
        contenders.Contender(LLAMA_TOOL, "", str(tool), tmp_path),
        contenders.Contender(TORCH, "pytorch", sys.executable, tmp_path / "missing"),
    ]
    text = Text("text", [3, 4, 5, 6])
    found = rounds.measure([ours, *others], PLAN, text, 10, soon())
    assert [len(figures.write) for figures in found] == [2, 2, 0]
    assert found[1].write == [2.0, 2.0] and found[1].prompt == [4.0, 4.0]
    assert found[2].problem
    values = rounds.as_json(found[1], PLAN, found[0])
    assert values["decode_tokens_per_second"]["median"] == 1.0
    assert values["prefill_tokens_per_second"]["median"] == 5.0
    assert values["ours_over_it_write"]["median"] == pytest.approx(
        np.median([2.0 / seconds for seconds in found[0].write])
    )
    lines = list(report.lines(10, found, found[0], PLAN))
    assert len(lines) == 3
    assert "cannot be told" in lines[2] and found[2].problem in lines[2]


def test_a_system_that_reads_too_long_leaves_time_for_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waits: dict[str, list[float]] = {}

    class Worker:
        version = "1"

        def __init__(self, python: str, module: str, *_: object) -> None:
            self._waits = waits.setdefault(module, [])
            self._until = float(_[-1])  # type: ignore[arg-type]

        def may_take_until(self, deadline: float) -> None:
            self._until = deadline

        def ask(self, do: str, **_: object) -> float:
            self._waits.append(self._until)
            if do == "read" and self._waits is waits.get("slow"):
                raise Gone("no time was left")
            return 1.0

        def memory(self) -> None:
            return None

        def close(self) -> None:
            pass

    monkeypatch.setattr(rounds, "Child", Worker)
    both = [contenders.Contender(name, name, "python", tmp_path) for name in ("quick", "slow")]
    deadline = soon()
    quick, slow = rounds.measure(both, PLAN, Text("text", [3, 4]), 10, deadline)

    assert len(quick.write) == PLAN.rounds and slow.problem == "no time was left"
    assert max(waits["slow"]) < deadline - 10, "it had to be done before"
    assert waits["quick"][-1] == deadline, "turns may take all that is left"


def test_a_figure_above_what_the_machine_multiplies_is_not_believed(tmp_path: Path) -> None:
    quick = rounds.Figures(LLAMA, prompt=[0.5, 0.001], question=[0.1], write=[1.0])
    slow = rounds.Figures(OURS, prompt=[0.5, 0.5], question=[0.1], write=[1.0])
    for figures in (quick, slow):
        rounds.refuse_impossible(figures, PLAN, most=100.0)

    assert slow.problem == "" and slow.prompt == [0.5, 0.5]
    assert quick.prompt == quick.question == quick.write == []
    assert "not believed: 20,000 tokens/s" in quick.problem
    [line] = report.lines(0, [quick], slow, PLAN)
    assert "cannot be told: not believed" in line


def test_limit_counts_the_matrices_of_the_decoder(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = open_package(tiny_model_dir).manifest
    monkeypatch.setattr(limit, "_products", lambda threads: iter([1e9 * threads, 5e8]))
    one, two = (limit.most_tokens_per_second(manifest, threads) for threads in (1, 2))

    decoder = manifest.backbone
    heads = (2 * decoder.query_heads + 2 * decoder.kv_heads) * decoder.head_dim
    weights = decoder.layers * decoder.hidden_size * (heads + 3 * decoder.intermediate_size)
    assert one == pytest.approx(limit.SLACK * 1e9 / (2 * weights))
    assert two == pytest.approx(2 * one)


def test_machine_multiplies_at_all() -> None:
    assert all(rate > 1e8 for rate in limit._products(1))


def test_nothing_is_measured_when_the_time_is_over(ours: contenders.Contender) -> None:
    found = rounds.measure([ours], PLAN, Text("text", [3]), 0, time.monotonic())
    assert found[0].write == []
    assert found[0].problem == "no time was left"


def test_the_tool_is_asked_for_depth_prompt_and_tokens() -> None:
    line = llama_bench.command(Path("llama-bench"), Path("m.gguf"), 2, 2048, SIZES)
    for pair in (["-d", "2048"], ["-p", "20"], ["-n", "2"], ["-t", "2"], ["-r", "1"]):
        at = line.index(pair[0])
        assert line[at : at + 2] == pair


@pytest.mark.parametrize("text", ["", "[]", "{}", "[1]", json.dumps(TESTS[:1]), "null"])
def test_what_the_tool_did_not_measure_is_no_figure(text: str) -> None:
    with pytest.raises(Gone):
        llama_bench.parse(text, SIZES)


def test_a_start_is_measured_from_outside(ours: contenders.Contender, tool: Path) -> None:
    two = [ours, contenders.Contender(LLAMA_TOOL, "", str(tool), tool)]
    plan = rounds.Plan(question=20)
    seconds, problems = start.measure(two, plan, Text("text", [3]), soon(), rounds=1)
    assert problems == {}
    assert all(len(found) == 1 and found[0] > 0 for found in seconds.values())
    lines = list(report.start_lines(seconds, OURS))
    assert "ours ÷ it" in lines[1]


def test_what_is_not_installed_is_said_with_its_remedy(tmp_path: Path) -> None:
    setup = contenders.Setup(
        tmp_path, tmp_path / "m.gguf", tmp_path, "/no/python", threads=1, context=100
    )
    found, missing = contenders.prepare(setup, (OURS, LLAMA, LLAMA_TOOL, GENAI, TORCH))
    assert [who.name for who in found] == [OURS]
    assert "pip install llama-cpp-python" in missing[LLAMA]
    assert "--llama-bench" in missing[LLAMA_TOOL]
    assert "pip install onnxruntime-genai" in missing[GENAI]
    assert "pip install transformers" in missing[TORCH]


def test_the_float16_file_holds_the_same_numbers_and_facts(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "m.gguf"
    values = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q8_0
    quantized = gguf.quants.quantize(values, kind)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(3)
    writer.add_token_list(["a", "b"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_tensor("matrix", quantized, raw_dtype=kind)
    writer.add_tensor("norm", values[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reader = gguf.GGUFReader(str(files.float16_file(path, tmp_path)))
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    np.testing.assert_array_equal(
        tensors["matrix"].data, gguf.quants.dequantize(quantized, kind).astype(np.float16)
    )
    np.testing.assert_array_equal(tensors["norm"].data, values[0])
    assert reader.fields["llama.block_count"].contents() == 3
    assert reader.fields["tokenizer.ggml.tokens"].contents() == ["a", "b"]
    assert reader.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_F16


def test_our_figures_of_a_depth_are_kept_from_the_first_time() -> None:
    row = {"systems": [{"system": OURS, "n": 1}]}
    merged(row, [{"system": OURS, "n": 2}, {"system": GENAI, "n": 3}])
    assert [system["n"] for system in row["systems"]] == [1, 3]


def test_the_command_prints_and_keeps_a_whole_run(
    tiny_model_dir: Path, tool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, kept = tmp_path / "text.txt", tmp_path / "peers.json"
    text.write_text("The river went round the old mill. " * 9)
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"")
    arguments = [
        tiny_model_dir, gguf, text, "--depths", "0,20", "--systems", f"{OURS},{LLAMA_TOOL}",
        "--prompt", 20, "--tokens", 2, "--rounds", 1, "--threads", 1, "--no-start",
        "--llama-bench", tool, "--work", tmp_path / "work", "--json", kept,
    ]  # fmt: skip
    main([str(a) for a in arguments])
    found = json.loads(kept.read_text())
    assert [row["tokens_read"] for row in found["depths"]] == [0, 20]
    for row in found["depths"]:
        assert [system["system"] for system in row["systems"]] == [OURS, LLAMA_TOOL]
        assert row["systems"][1]["ours_over_it_write"]["count"] == 1
    assert LLAMA_TOOL in capsys.readouterr().out


def test_a_picture_is_drawn_of_a_run_that_was_kept(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    speed = {"median": 2.0, "lowest": 1.0, "highest": 3.0, "count": 3}
    systems = [
        {"system": OURS, "decode_tokens_per_second": speed, "resident_bytes": 1 << 28},
        {"system": LLAMA_TOOL, "decode_tokens_per_second": speed, "resident_bytes": None},
        {"system": GENAI, "problem": "not installed", "resident_bytes": None},
    ]
    kept, picture = tmp_path / "peers.json", tmp_path / "peers.png"
    depths = [{"tokens_read": n, "systems": systems} for n in (0, 2048, 8192)]
    values = {"depths": depths, "machine": {"name": "CPU"}, "model": "m", "threads": 2}
    kept.write_text(json.dumps(values))
    # Model, file and text are not opened.
    arguments = [tmp_path, kept, kept, "--draw", "--json", kept, "--plot", picture]
    main([str(a) for a in arguments])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_was_not_reached_is_said(
    tiny_model_dir: Path, tool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        tiny_model_dir, tool, tool, "--depths", "20", "--systems", f"{OURS},{LLAMA_TOOL}",
        "--minutes", 0, "--no-start", "--llama-bench", tool, "--work", tmp_path / "work",
    ]  # fmt: skip
    main([str(a) for a in arguments])
    assert f"{LLAMA_TOOL:<22}  not reached in 0 minutes" in capsys.readouterr().out


def test_systems_nobody_knows_are_refused(
    tiny_model_dir: Path, tool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tiny_model_dir), str(tool), str(tool), "--systems", "allmem,abacus"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "--systems" in capsys.readouterr().err
