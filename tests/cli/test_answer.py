"""``allmem answer``: a student's own answers become training data, each made once."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from commands import Command, finished, process

from allmem_exporters.finetune.data import Shards
from allmem_exporters.finetune.data.chats import read_chats
from allmem_exporters.finetune.data.tokens import Tokens
from allmem_runtime import Sampling, load
from allmem_runtime.evaluation.chat_lines import read_prompts
from allmem_runtime.evaluation.own_answers import prompt_ids

HERE = ("--device", "cpu", "--operators", "portable", "--max-tokens", 6)
RECIPE = """checkpoint = "{checkpoint}"
length = 200
sequences = 9
heldout_sequences = 9
[[source]]
kind = "chat"
files = ["answers.jsonl"]
heldout = 0.5
"""


def line(*texts: str, system: str | None = None) -> str:
    turns = [(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)]
    messages = [("system", system), *turns] if system else turns
    return json.dumps({"messages": [{"role": r, "content": c} for r, c in messages]})


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    lines = [
        line("Who has the key?"),
        line("Who?", "Nobody.", "And where?", "Somewhere else."),
        line("Was ist das? 東京", system="Be brief."),
        *[line(f"Count to {n}.") for n in range(9)],
        line("Who has the key?"),
    ]
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return path


def kept(path: Path) -> list[dict[str, object]]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def test_answers_are_what_the_runtime_answers(
    command: Command, tiny_model_dir: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    done = command("allmem", "answer", tiny_model_dir, prompts, out, *HERE)
    assert done.code == 0, done.err
    assert "13 answers written" in done.out and "[13/13]" in done.err
    model = load(tiny_model_dir, device="cpu", operators="portable")
    sampling = Sampling(max_tokens=6)
    first, second, third, *_ = kept(out)
    assert first["messages"][-1] == {  # type: ignore[index]
        "role": "assistant",
        "content": model.session().ask("Who has the key?", sampling=sampling),
    }
    asked = model.session().ask("Was ist das? 東京", sampling=sampling, system="Be brief.")
    assert third["messages"][-1]["content"] == asked  # type: ignore[index]
    # What followed the last question is replaced, what led to it is kept.
    roles = [m["role"] for m in second["messages"]]  # type: ignore[attr-defined]
    assert roles == ["user", "assistant", "user", "assistant"]
    assert second["messages"][1]["content"] == "Nobody."  # type: ignore[index]
    assert second["messages"][3]["content"] != "Somewhere else."  # type: ignore[index]


def test_a_prompt_is_read_as_training_reads_it(
    tiny_model_dir: Path, tiny_checkpoint_dir: Path, prompts: Path
) -> None:
    model = load(tiny_model_dir, device="cpu", operators="portable")
    tokens = Tokens(tiny_checkpoint_dir)
    for prompt in read_prompts(prompts):
        ids = prompt_ids(model, prompt.messages)
        messages = [*prompt.messages, ("assistant", "Yes.")]
        learned, counts = tokens.conversation([{"role": r, "content": c} for r, c in messages])
        assert learned.tolist()[: len(ids)] == ids
        assert counts[len(ids)] and not counts[len(ids) - 1]


def test_training_data_is_made_of_the_answers(
    command: Command, tiny_model_dir: Path, tiny_checkpoint_dir: Path, prompts: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    command("allmem", "answer", tiny_model_dir, prompts, tmp_path / "answers.jsonl", *HERE)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(checkpoint=tiny_checkpoint_dir))
    assert command("allmem", "data", recipe, tmp_path / "data").code == 0
    sides = [Shards(tmp_path / "data", split=split) for split in ("train", "heldout")]
    assert sum(map(len, sides)) == 13 and all(map(len, sides))
    assert all(sequence.counts.any() for side in sides for sequence in side)


def test_another_answer_to_a_question_stays_on_its_side(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    texts = [line(f"Question {n // 3}?", f"Answer {n}.") for n in range(60)]
    path.write_text("\n".join(texts))
    sides = [side for side, _, _ in read_chats(path, 0.5)]
    assert set(sides) == {"train", "heldout"}
    assert all(len(set(sides[n : n + 3])) == 1 for n in range(0, 60, 3))


def test_equal_seeds_draw_equal_answers_and_equal_prompts_different_ones(
    command: Command, tiny_model_dir: Path, prompts: Path, tmp_path: Path
) -> None:
    texts = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        arguments = (prompts, tmp_path / name, *HERE, "--temperature", 2, "--seed", seed)
        assert command("allmem", "answer", tiny_model_dir, *arguments).code == 0
        records = kept(tmp_path / name)
        texts.append([r["messages"][-1]["content"] for r in records])  # type: ignore[index]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0][0] != texts[0][-1], "the same question twice"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "Ctrl-C"])
def test_a_run_that_was_cut_off_goes_on_without_losing_or_doubling(
    command: Command, tiny_model_dir: Path, prompts: Path, tmp_path: Path, how: signal.Signals
) -> None:
    out, once = tmp_path / "answers.jsonl", tmp_path / "once.jsonl"
    drawing = (*HERE, "--temperature", 1)
    running = process("allmem", "answer", tiny_model_dir, prompts, out, *drawing)
    while not out.exists() or out.read_bytes().count(b"\n") < 2:
        assert running.poll() is None
        time.sleep(0.002)
    running.send_signal(how)
    assert finished(running).code == (130 if how == signal.SIGINT else -signal.SIGKILL)
    there = out.read_bytes().count(b"\n")
    # The kill came in the middle of a line.
    with out.open("ab") as file:
        file.write(b'{"messages": [{"role": "us')
    again = command("allmem", "answer", tiny_model_dir, prompts, out, *drawing)
    assert again.code == 0 and f"{13 - there} answers written" in again.out
    command("allmem", "answer", tiny_model_dir, prompts, once, *drawing)
    assert out.read_bytes() == once.read_bytes()
    third = command("allmem", "answer", tiny_model_dir, prompts, out, *drawing)
    assert "0 answers written" in third.out and "13 were there already" in third.out


def test_a_file_is_gone_on_with_by_the_same_model_and_options_only(
    command: Command, tiny_model_dir: Path, other_model_dir: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    command("allmem", "answer", tiny_model_dir, prompts, out, *HERE, "--limit", 2)
    before = out.read_bytes()
    for model, more, says in (
        (other_model_dir, (), "digest"),
        (tiny_model_dir, ("--temperature", 1), "temperature 0.0, and now it is 1.0"),
        (tiny_model_dir, ("--seed", 3), "seed 0, and now it is 3"),
    ):
        refused = command("allmem", "answer", model, prompts, out, *HERE, *more)
        assert refused.code == 2 and says in refused.err
    assert out.read_bytes() == before


@pytest.mark.parametrize("text", ["notes\n", "notes", '{"messages": []}\n'], ids=repr)
def test_a_file_of_something_else_is_left_alone(
    command: Command, tiny_model_dir: Path, prompts: Path, tmp_path: Path, text: str
) -> None:
    out = tmp_path / "notes.txt"
    out.write_text(text)
    refused = command("allmem", "answer", tiny_model_dir, prompts, out, *HERE)
    assert refused.code == 2 and "line 1 is no answer" in refused.err
    assert out.read_text() == text


def test_prompts_are_never_written_over(
    command: Command, tiny_model_dir: Path, prompts: Path
) -> None:
    assert "is the file of prompts" in command(
        "allmem", "answer", tiny_model_dir, prompts, prompts, *HERE
    ).err  # fmt: skip


def test_prompts_that_are_too_long_are_left_out_and_counted(
    command: Command, tiny_model_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(line("Who?") + "\n" + line("Who? " * 100))
    done = command(
        "allmem", "answer", tiny_model_dir, path, tmp_path / "a", *HERE, "--longest", 99
    )  # fmt: skip
    assert "1 answer written" in done.out and "1 prompt longer" in done.out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ('{"text": "a"}', 'no list "messages"'),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "message 0 has no role"),
        ('{"messages": [{"role": "user", "content": 5}]}', "message 0 has no role"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "no message of the user"),
        (line("a", "b").replace("assistant", "user"), "take turns"),
    ],
    ids=["json", "messages", "role", "content", "no user", "turns"],
)
def test_a_faulty_line_is_named_before_anything_is_answered(
    command: Command, tiny_model_dir: Path, tmp_path: Path, text: str, says: str
) -> None:
    path, out = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    path.write_text(f"{line('Who?')}\n{text}\n")
    refused = command("allmem", "answer", tiny_model_dir, path, out, *HERE)
    assert refused.code == 1 and "line 2" in refused.err and says in refused.err
    assert not out.exists()
