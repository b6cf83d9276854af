"""What a start need not do: import what is not used, read the tokenizer twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from runtime.tokenizers_for_tests import byte_level_json

from allmem_runtime.engine.threads import BLAS_VARIABLE
from allmem_runtime.text import tokenizer
from allmem_runtime.text.parts import Part

TEXTS = [
    "Hello  world,\n\tthis is <|im_start|>user and <|im_end|> it's <|endoftext|>fine",
    "東京 🙂 naïve café \u0301 \ufffd \x00",
    "",
    " " * 50,
    "def f(x):\n    return x ** 2  # 1234567890",
]


def imported(code: str) -> set[str]:
    """Modules that are loaded after some code ran in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import allmem_runtime",
        "from allmem_runtime.cli import allmem\nallmem.main(['--help'], standalone_mode=False)",
        "import allmem_runtime.cli.run",
    ],
    ids=["package", "help", "run before its options are checked"],
)
def test_slow_libraries_are_not_loaded_before_they_are_needed(code: str) -> None:
    assert not imported(code) & {"onnxruntime", "numpy", "tokenizers", "jinja2"}


WATCHED_RUN = """
import os, sys
class Watch:
    def find_spec(self, name, *_):
        if name == "numpy":
            sys.stderr.write(os.environ.get({variable!r}, "unset"))
sys.meta_path.insert(0, Watch())
from allmem_runtime.cli.run import run
run.main([{model!r}, "--prompt", "Who?", "--max-tokens", "1", "--quiet"], standalone_mode=False)
"""


@pytest.mark.parametrize(("said", "expected"), [(None, "1"), ("4", "4")], ids=["nothing", "four"])
def test_numpy_starts_no_threads_for_a_run_unless_it_is_told_to(
    tiny_model_dir: Path, said: str | None, expected: str
) -> None:
    """Its import would start one for each core, and nothing would use them."""
    environment = {name: value for name, value in os.environ.items() if name != BLAS_VARIABLE}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    if said:
        environment[BLAS_VARIABLE] = said
    code = WATCHED_RUN.format(variable=BLAS_VARIABLE, model=str(tiny_model_dir))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stderr == expected


def test_public_names_are_found_when_they_are_first_used() -> None:
    modules = imported("from allmem_runtime import load, Model, Sampling, Session, Progress")
    assert "onnxruntime" in modules
    import allmem_runtime

    assert set(allmem_runtime.__all__) <= set(dir(allmem_runtime))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = allmem_runtime.nothing


def test_the_second_encoder_is_made_without_reading_the_file_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []
    real = tokenizer._plain
    monkeypatch.setattr(tokenizer, "_plain", lambda text: (read.append(text), real(text))[1])
    tokenizer.Tokenizer(byte_level_json())
    assert len(read) == 1


@pytest.mark.parametrize("source", ["byte level", "tiny"])
def test_both_ways_to_make_the_second_encoder_are_one(
    monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path, source: str
) -> None:
    content = byte_level_json()
    if source == "tiny":
        content = (tiny_model_dir / "tokenizer.json").read_text(encoding="utf-8")
    shared = tokenizer.Tokenizer(content)
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "_twin", lambda other, added: None)
        reread = tokenizer.Tokenizer(content)

    for text in TEXTS:
        assert shared.encode_text(text) == reread.encode_text(text)
        template = [Part(text, control=True)]
        assert shared.encode_parts(template) == reread.encode_parts(template)
    assert shared.vocab_size == reread.vocab_size


def test_a_twin_that_would_number_its_tokens_otherwise_is_not_used() -> None:
    other = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    other.add_special_tokens(["<s>"])
    added = other.get_added_tokens_decoder()
    assert tokenizer._twin(other, added) is not None
    gap = {number + 5: token for number, token in added.items()}
    assert tokenizer._twin(other, gap) is None
