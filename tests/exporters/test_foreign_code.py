"""No command runs code of a folder, unpickles it, or fetches what nobody named."""

from __future__ import annotations

import ast
import json
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_folder
from foreign_code import Watched
from test_untrusted_folders import Trap

from benchmarks.families.tiny import SIZES, write_tiny_decoder

Change = Callable[[Path], None]
CODE = {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoModelForCausalLM": "evil.Evil"}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    one = Watched(tmp_path_factory.mktemp("watched"))
    yield one
    one.close()


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A file that only exists once code of a folder has run."""
    return tmp_path / "has run"


@pytest.fixture(params=["packed", "generic"])
def source(request: pytest.FixtureRequest, tmp_path: Path, evil: Path) -> Path:
    """A pretrained decoder on either path, with a module beside it that would leave a trace."""
    folder = tmp_path / "source"
    if request.param == "packed":
        write_folder(folder)
    else:
        write_tiny_decoder(folder, "gpt_neox")
    (folder / "evil.py").write_text(f"open({str(evil)!r}, 'w').close()\nclass Evil: pass\n")
    return folder


def settings(file: str, **values: Any) -> Change:
    """Puts settings into a file of a folder."""

    def change(folder: Path) -> None:
        path = folder / file
        known = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**known, **values}))

    return change


def without_tokenizer(more: Change) -> Change:
    """The same, where transformers would have to make the tokenizer."""

    def change(folder: Path) -> None:
        more(folder)
        (folder / "tokenizer.json").unlink()

    return change


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(folder.parent / "has run")))


TOKENIZER = settings("tokenizer_config.json", auto_map=CODE)
KERNEL = settings("config.json", attn_implementation="someone/kernel")
CHANGES: dict[str, tuple[Change, str]] = {
    "code of a tokenizer": (TOKENIZER, r"tokenizer_config.json asks for code .*auto_map"),
    "code of a tokenizer in another form": (without_tokenizer(TOKENIZER), "asks for code"),
    "code of a model": (settings("config.json", auto_map=CODE), "asks for code"),
    "code of a part": (settings("config.json", part={"auto_map": CODE}), "asks for code"),
    "kernel": (KERNEL, r"asks for a kernel .*attn_implementation is 'someone/kernel'"),
    "kernel of a part": (
        settings("config.json", parts=[{"_attn_implementation_internal": "someone/kernel"}]),
        "asks for a kernel",
    ),
    "pickle": (pickled, "no weights in safetensors form"),
}


@pytest.mark.parametrize("verb", ["convert", "make", "optimum"])
@pytest.mark.parametrize("name", CHANGES)
def test_command_refuses_what_asks_for_code_and_reaches_for_nothing(
    watched: Watched, source: Path, tmp_path: Path, evil: Path, name: str, verb: str
) -> None:
    change, message = CHANGES[name]
    change(source)
    named = ["--model", source, tmp_path / "out"] if verb == "optimum" else [
        source, tmp_path / "out"
    ]  # fmt: skip
    done = watched.run(verb, *named)
    assert done.code
    assert_says(done.err, message)
    assert done.reached == "" and not evil.exists() and not (tmp_path / "out").exists()


def assert_says(err: str, message: str) -> None:
    assert re.search(message, err) and "Traceback" not in err, err


@pytest.mark.parametrize("name", ["code of a model", "code of a part", "kernel", "pickle"])
def test_export_refuses_the_same_of_a_checkpoint(
    watched: Watched, tmp_path: Path, tiny_checkpoint_dir: Path, evil: Path, name: str
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint_dir, folder)
    (folder / "evil.py").write_text(f"open({str(evil)!r}, 'w').close()\nclass Evil: pass\n")
    change, message = CHANGES[name]
    change(folder)
    done = watched.run("export", folder, tmp_path / "out")
    assert done.code
    assert_says(done.err, message)
    assert done.reached == "" and not evil.exists() and not (tmp_path / "out").exists()


KINDS: dict[str, dict[str, Any]] = {
    # Their modules ask for a kernel when they are imported.
    "gpt_neo": {"attention_types": [[["global"], 2]]},
    "falcon": {},
    "bloom": {},
    "rwkv": {},
    # Within their configurations any class of transformers can be named.
    "fuyu": {"text_config": {"model_type": "timm_wrapper", "architecture": "hf-hub:someone/x"}},
    "gemma3": {"text_config": {}, "vision_config": None},
    "gemma3n": {},
    "moshi": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_decoder_makes_transformers_fetch_anything(
    watched: Watched, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "source"
    write_tiny_decoder(folder, "gpt_neox")
    sizes = {k: v for k, v in SIZES.items() if k != "num_key_value_heads"}
    (folder / "config.json").write_text(json.dumps({**sizes, "model_type": kind, **KINDS[kind]}))
    done = watched.run("convert", folder, tmp_path / "out")
    assert done.code and "Traceback" not in done.err
    assert done.reached == "", done.reached


def test_a_model_that_is_good_is_made_and_nothing_is_reached_for(
    watched: Watched, source: Path, tmp_path: Path
) -> None:
    shape = ("--window", 32, "--sinks", 4, "--chunk", 16, "--mem-width", 16)
    done = watched.run("convert", source, tmp_path / "checkpoint", *shape)
    assert (done.code, done.reached) == (0, ""), done
    done = watched.run("export", tmp_path / "checkpoint", tmp_path / "out")
    assert (done.code, done.reached) == (0, ""), done


def test_what_reaches_out_would_be_seen(watched: Watched, tmp_path: Path) -> None:
    """The hub is asked where somebody names a model of the hub."""
    done = watched.run("convert", "allmem-nobody/no-such-model", tmp_path / "out")
    assert done.code and "socket.getaddrinfo" in done.reached


def test_every_call_of_a_loader_of_transformers_says_that_no_code_is_run() -> None:
    root, calls = Path(__file__).parents[2], []
    for path in [*root.glob("exporters/**/*.py"), *root.glob("benchmarks/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                if not (owner.startswith("Auto") and node.func.attr.startswith("from_")):
                    continue
                said = {word.arg: ast.unparse(word.value) for word in node.keywords}
                # What is tiny and made here names no code.
                if node.func.attr == "from_config" and "benchmarks" in path.parts:
                    continue
                assert said.get("trust_remote_code") == "False", f"{path}:{node.lineno}"
                if owner.startswith("AutoModel") and node.func.attr == "from_pretrained":
                    assert said.get("use_safetensors") == "True", f"{path}:{node.lineno}"
                calls.append(path)
    assert len(calls) > 5
