"""RULER: a package of the same outline runs, its prompts are cut right, its troubles are named."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tokenizers
from runtime.fake_ruler import write_fake
from tokenizers import models, pre_tokenizers

from allmem_exporters.finetune.data.questions import RESERVED
from allmem_runtime.evaluation import ruler_package
from allmem_runtime.evaluation.ruler import RESERVED_QUESTIONS, ruler_items, split
from allmem_runtime.evaluation.ruler_host import CountingTokenizer, Watch, zeta
from allmem_runtime.evaluation.ruler_package import TASKS, BenchmarkError
from allmem_runtime.text.segments import Segmenter
from allmem_runtime.text.tokenizer import Tokenizer

MODULE = ruler_package.MODULE


@pytest.fixture
def forget() -> Iterator[Callable[[], None]]:
    """Takes the package out of what Python has imported, before and after."""

    def gone() -> None:
        for name in [n for n in sys.modules if n.partition(".")[0] == MODULE]:
            del sys.modules[name]

    gone()
    yield gone
    gone()


@pytest.fixture
def install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]
) -> Callable[..., Path]:
    """Puts a fake package where Python finds it."""

    def at(broken: str = "failing") -> Path:
        folder = write_fake(tmp_path / "packages", broken)
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        return folder

    return at


def test_without_the_package_the_error_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BenchmarkError, match="pip install --no-deps nvidia-long-context-eval"):
        ruler_package.task("vt")


def test_prompts_are_those_of_the_package_and_fit(
    install: Callable[..., Path], toy_dir: Path
) -> None:
    install()
    task = ruler_package.task("niah_single_1")
    path = toy_dir / "tokenizer.json"
    items = ruler_items(task, [300, 500], 2, 7, path, overhead=20)
    tokenizer = Tokenizer.from_file(path)
    assert [(i.column, i.sample) for i in items] == [("300", 0), ("300", 1), ("500", 0), ("500", 1)]
    for item in items:
        (question,) = item.questions
        assert item.document.startswith("Remember the number. What is red? The number is ")
        assert question.text == "\nWhat is the number for Bob?"
        assert question.prefix == " The number for Bob is"
        assert question.references[0] in item.document
        assert question.max_tokens == 4
        whole = item.document + question.text + question.prefix
        assert len(tokenizer.encode_text(whole)) <= int(item.column) - 20
    again = ruler_items(task, [300, 500], 2, 7, path, overhead=20)
    other = ruler_items(task, [300], 2, 8, path, overhead=20)
    assert items == again and items[0] != other[0]


def test_questions_that_fit_into_no_prompt_are_left_out(
    install: Callable[..., Path], toy_dir: Path
) -> None:
    install()
    items = ruler_items(
        ruler_package.task("qa_1"), [300], 4, 0, toy_dir / "tokenizer.json", overhead=0
    )
    assert [item.questions[0].references[0] for item in items] == ["0", "2", "3", "5"]
    assert [item.sample for item in items] == [0, 1, 2, 3]


def test_questions_that_training_may_have_seen_are_never_asked(
    install: Callable[..., Path], toy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    task, path = ruler_package.task("qa_1"), toy_dir / "tokenizer.json"
    with pytest.raises(BenchmarkError, match="501 samples of qa_1.*fewer --samples"):
        ruler_items(task, [300], RESERVED_QUESTIONS + 1, 0, path, 0)
    # Every third question is left out, so the fourth that fits is number 5: the sixth.
    monkeypatch.setattr("allmem_runtime.evaluation.ruler.RESERVED_QUESTIONS", 5)
    assert len(ruler_items(task, [300], 3, 0, path, 0)) == 3
    with pytest.raises(BenchmarkError, match="3 questions that fit.*1 more"):
        ruler_items(task, [300], 4, 0, path, 0)


def test_training_data_keeps_as_many_questions_out_as_are_asked_at_most() -> None:
    assert RESERVED == RESERVED_QUESTIONS


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("missing", "nonexistent_package"),
        ("failing", "no words"),
        ("endless", "cannot be made for 300 tokens"),
    ],
)
def test_what_a_generator_suffers_from_is_told(
    install: Callable[..., Path], toy_dir: Path, broken: str, says: str
) -> None:
    install(broken)
    with pytest.raises(BenchmarkError, match=says):
        ruler_items(ruler_package.task("vt"), [300], 1, 0, toy_dir / "tokenizer.json", 0)


def test_scoring_is_the_packages_own(install: Callable[..., Path]) -> None:
    install()
    task = ruler_package.task("niah_single_1")
    assert task.score("  12\x00and 34 ", ("12", "99")) == 50.0
    assert task.clean("\x01 12 ") == "12"


def test_a_package_of_another_form_is_refused(install: Callable[..., Path]) -> None:
    folder = install()
    (folder / MODULE / "eval" / "evaluate.py").write_text("other = 1\n")
    with pytest.raises(BenchmarkError, match="not as expected"):
        ruler_package.task("qa_1")


def test_a_prompt_of_another_form_is_refused(install: Callable[..., Path]) -> None:
    install()
    with pytest.raises(BenchmarkError, match="not found"):
        split(ruler_package.task("niah_single_1"), "Nothing to ask here.")


def test_zeta_is_that_of_the_tables() -> None:
    assert zeta(2.0) == pytest.approx(math.pi**2 / 6, rel=1e-14)
    assert zeta(4.0) == pytest.approx(math.pi**4 / 90, rel=1e-14)
    assert zeta(1.5) == pytest.approx(2.6123753486854883, rel=1e-12)


@pytest.mark.long
@pytest.mark.skipif(
    importlib.util.find_spec(MODULE) is None or importlib.util.find_spec("wonderwords") is None,
    reason="need nvidia-long-context-eval and the extra eval",
)
@pytest.mark.parametrize("name", TASKS)
def test_the_real_package_makes_prompts_that_are_cut_right(name: str, tmp_path: Path) -> None:
    # Words and signs as tokens: the tiny tokenizers are of bytes, and the package's worked
    # example of variable tracking must fit into 500 tokens.
    path = tmp_path / "tokenizer.json"
    words = tokenizers.Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(path))
    task = ruler_package.task(name)
    for item in ruler_items(task, [2048], 1, 42, path, overhead=30):
        (question,) = item.questions
        starts = {"niah": "\nWhat ", "qa": "\n\nAnswer the question"}
        assert question.text.startswith(starts.get(task.script.stem, "\nQuestion: "))
        assert question.prefix.split()[0] in ("The", "Answer:")
        tokens = Tokenizer.from_file(path).encode_text(item.document + question.text)
        assert len(tokens) <= 2048
        answer = ", ".join(question.references)
        assert task.score(answer, question.references) == 100.0
        assert task.score("", question.references) == 0.0


def test_prompts_are_counted_as_the_runtime_reads_them(toy_dir: Path) -> None:
    tokenizer = Tokenizer.from_file(toy_dir / "tokenizer.json")
    counted = CountingTokenizer(tokenizer, Watch())
    text = "A line of it.\n\nAnother one, longer than the first. " * 200
    for length in (len(text), 5000, 4999, 0):
        segmenter = Segmenter()
        segments = (*segmenter.push(text[:length]), *segmenter.flush())
        read = [token for part in segments for token in tokenizer.encode_text(part.text)]
        assert counted.text_to_tokens(text[:length]) == read
