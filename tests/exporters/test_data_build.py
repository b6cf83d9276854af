"""What sequences of a recipe hold: lengths, loss only where it belongs, answers that are told."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from data_sources import checkpoint, hotpotqa, squad, texts

from allmem_exporters.commands.data import data
from allmem_exporters.errors import DataError
from allmem_exporters.finetune.data import Shards
from allmem_exporters.finetune.data.tokens import Tokens

RECIPE = """
length = 2048
seed = 1
heldout = 0.3
sequences = 16
heldout_sequences = 8
checkpoint = "model"
[[source]]
kind = "text"
files = ["texts"]
[[source]]
kind = "hotpotqa"
file = "hotpot.json"
reserved = 5
questions = 3
[[source]]
kind = "squad"
file = "squad.json"
reserved = 5
questions = 3
[[source]]
kind = "keyvalue"
questions = 3
[[source]]
kind = "needle"
questions = 2
[[source]]
kind = "chains"
questions = 2
[[source]]
kind = "common"
[[source]]
kind = "repeats"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    checkpoint(folder / "model")
    texts(folder / "texts", 12)
    hotpotqa(folder / "hotpot.json", 60)
    squad(folder / "squad.json", 20)
    (folder / "recipe.toml").write_text(RECIPE)
    made = CliRunner().invoke(data, [str(folder / "recipe.toml"), str(folder / "out")])
    assert made.exit_code == 0, made.output
    assert "hotpotqa        train" in made.output
    return folder


@pytest.fixture(scope="module")
def tokens(folder: Path) -> Tokens:
    return Tokens(folder / "model")


def test_every_kind_is_made_for_both_splits_within_the_length(folder: Path) -> None:
    for split, number in (("train", 2), ("heldout", 1)):
        shards = Shards(folder / "out", split=split)
        kinds = Counter(s.kind for s in shards)
        assert set(kinds.values()) == {number} and len(kinds) == 8
        assert all(len(s) <= 2048 for s in shards)
        # A task's document is filled up to its length, but for one more paragraph.
        assert all(len(s) > 1600 for s in shards if s.kind != "common")


def test_only_answers_and_their_ends_count(folder: Path, tokens: Tokens) -> None:
    shards = Shards(folder / "out", kinds=("squad", "hotpotqa", "keyvalue", "needle"))
    for sequence in shards:
        text = tokens.decode(sequence.ids)
        answers = [a.split("<|im_end|>")[0] for a in text.split("<|im_start|>assistant\n")[1:]]
        assert len(answers) >= 2
        counted = tokens.decode(sequence.ids[sequence.counts])
        assert counted == "".join(f"{answer}<|im_end|>" for answer in answers)


def test_every_answer_is_told_before_it_is_asked_for(folder: Path, tokens: Tokens) -> None:
    shards = Shards(folder / "out", split=None)
    for sequence in shards:
        if sequence.kind in ("text", "repeats"):
            continue
        document, *turns = tokens.decode(sequence.ids).split("<|im_start|>assistant\n")
        for turn in turns:
            for part in turn.split("<|im_end|>")[0].split(", "):
                assert part in document, (sequence.kind, part)


def test_repeated_passages_are_predictable_to_the_letter(folder: Path, tokens: Tokens) -> None:
    for sequence in Shards(folder / "out", kinds=("repeats",)):
        first = int(np.argmax(sequence.counts))
        earlier = tokens.decode(sequence.ids[:first])
        edges = np.flatnonzero(np.diff(sequence.counts.astype(int), append=0))
        for start, end in zip(edges[::2] + 1, edges[1::2] + 1, strict=True):
            assert tokens.decode(sequence.ids[start:end]) in earlier


def test_all_tokens_of_plain_text_count_but_the_opening(folder: Path, tokens: Tokens) -> None:
    opening = tokens.opening()
    for sequence in Shards(folder / "out", kinds=("text",)):
        opened = sequence.ids[: len(opening)].tolist() == opening
        uncounted = len(opening) if opened else 1
        assert len(sequence) == 2048 and (~sequence.counts).sum() == uncounted


def test_held_out_texts_share_no_sentence_with_training(folder: Path, tokens: Tokens) -> None:
    def years(split: str) -> set[str]:
        shards = Shards(folder / "out", split=split, kinds=("text", "needle", "repeats", "chains"))
        text = " ".join(tokens.decode(s.ids) for s in shards)
        return {part[:4] for part in text.split("in the year ")[1:] if part[:4].isdigit()}

    assert years("train") and years("heldout") and not years("train") & years("heldout")


def test_the_same_recipe_gives_the_same_bytes(folder: Path) -> None:
    again = CliRunner().invoke(data, [str(folder / "recipe.toml"), str(folder / "again"), "--json"])
    assert json.loads(again.stdout)["sources"][0]["sequences"] == 2
    for name in ("tokens.bin", "counts.bin", "index.json"):
        assert (folder / "again" / name).read_bytes() == (folder / "out" / name).read_bytes()


def test_control_tokens_in_a_text_stay_text(tokens: Tokens) -> None:
    ids, counts = tokens.conversation(
        [{"role": "user", "content": "a<|im_end|>"}, {"role": "assistant", "content": "b"}]
    )
    ends = [number for number, name in tokens.control.items() if name == "<|im_end|>"]
    assert (ids == ends[0]).sum() == 2
    assert tokens.decode(ids[counts]) == "b<|im_end|>"


def run(folder: Path, recipe: str, name: str = "other.toml") -> DataError:
    (folder / name).write_text(recipe)
    result = CliRunner().invoke(data, [str(folder / name), str(folder / "never")])
    assert isinstance(result.exception, DataError) and not (folder / "never").exists()
    return result.exception


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("lenght = 10\n", r"other\.toml, line 1: unknown key 'lenght'. Did you mean 'length'"),
        ("length = 'x'\n", "line 1: length is 'x'; it must be an integer"),
        ("length = 3\n", "line 1: length is 3; allowed: 64 to"),
        ("a = = 1\n", r"other\.toml is not valid TOML.*line 1"),
        ("seed = 1\n", "lists no sources"),
        ('[[source]]\nkind = "squid"\n', "line 2: kind is 'squid'.*mean 'squad'"),
        ('[[source]]\nkind = "squad"\n', "line 2: .* needs file"),
        ('[[source]]\nkind = ["text"]\n', r"line 2: kind is \['text'\]"),
        ("a = " + "[" * 5000, "is not valid TOML: it is nested too deeply"),
        ('[[source]]\nkind = "common"\nfile = "a"\n', "line 3: unknown key 'file'"),
        ('[[source]]\nkind = "needle"\n', "line 2: needle needs prose"),
        ('[[source]]\nkind = "text"\nof = ["a"]\n', "line 3: of names 'a'"),
        ('[[source]]\nkind = "common"\n[[source]]\nkind = "common"\n', "two sources are named"),
    ],
    ids=["misspelt", "type", "range", "syntax", "none", "kind", "file", "kind is a list",
         "deep", "foreign key", "haystack",
         "of", "names"],
)  # fmt: skip
def test_a_faulty_recipe_is_told_with_its_line(folder: Path, recipe: str, message: str) -> None:
    error = run(folder, recipe)
    with pytest.raises(DataError, match=message):
        raise error


def test_missing_texts_are_named(folder: Path) -> None:
    recipe = 'checkpoint = "model"\nsequences = 1\n[[source]]\nkind = "text"\nfiles = ["nowhere"]\n'
    assert "nowhere" in run(folder, recipe).message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ('{"text": "a"}', 'no list "messages"'),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "role 'robot'"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "no answer"),
    ],
    ids=["json", "messages", "role", "answer"],
)
def test_a_faulty_conversation_is_named_by_file_and_line(
    folder: Path, line: str, message: str
) -> None:
    good = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    (folder / "chats.jsonl").write_text(f"{good}\n{line}\n")
    recipe = (
        'checkpoint = "model"\nsequences = 9\n[[source]]\nkind = "chat"\nfiles = ["chats.jsonl"]\n'
    )
    error = run(folder, recipe)
    assert "chats.jsonl, line 2" in error.message and message in error.message
