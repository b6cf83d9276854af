"""RULER: the prompts of nvidia-long-context-eval, cut into document, question and answer prefix.

The package makes and scores them; this file only starts its generators and finds the places where
the document ends and the answer begins, so that a document is read before its question is known.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from allmem_runtime.evaluation import ruler_package
from allmem_runtime.evaluation.items import Item, Question
from allmem_runtime.evaluation.ruler_host import MISSING, NO_SAMPLE, STUCK
from allmem_runtime.evaluation.ruler_package import REMEDY, BenchmarkError, Task
from allmem_runtime.quantities import format_tokens

_QUESTION_ANSWERING = "qa.py"
RESERVED_QUESTIONS = 500
"""Training data leaves out as many questions of each file, from its beginning; the next ones may
have been learned from."""

Prompt = dict[str, Any]


def ruler_items(
    task: Task, lengths: Sequence[int], samples: int, seed: int, tokenizer: Path, overhead: int
) -> list[Item]:
    """The package's prompts for one task.

    Args:
        task: of the package.
        lengths: tokens of prompt and answer together, the chat template included.
        samples: prompts of each length.
        seed: of the package's generator; its own default is 42.
        tokenizer: ``tokenizer.json`` of the models.
        overhead: tokens the chat template adds.

    Raises:
        BenchmarkError: a package is missing, or no prompt of this length can be made.
    """
    asks = task.script.name == _QUESTION_ANSWERING
    if asks and samples > RESERVED_QUESTIONS:
        raise _learned_from(task, f"{samples} samples of {task.name} are wanted")
    limits = {length: length - overhead for length in lengths}
    if min(limits.values()) <= task.tokens:
        raise _too_short(task, min(lengths))
    if asks:
        made = {n: _fitting(task, limit, samples, seed, tokenizer) for n, limit in limits.items()}
    else:
        found, stuck = _generate(task, list(limits.values()), samples, 0, seed, tokenizer)
        if stuck is not None:
            raise _too_short(task, stuck[0] + overhead)
        made = {n: found[limit] for n, limit in limits.items()}
    items = []
    for length, prompts in made.items():
        for sample, prompt in enumerate(prompts):
            document, text, prefix = split(task, prompt["input"])
            references = tuple(str(r) for r in prompt["outputs"])
            question = Question(text, prefix, references, task.tokens)
            items.append(Item(task.name, format_tokens(length), sample, document, (question,)))
    return items


def split(task: Task, prompt: str) -> tuple[str, str, str]:
    """Document, question and beginning of the answer; together they are the prompt.

    Raises:
        BenchmarkError: the prompt does not follow the task's template.
    """
    # Generators change words of the template ("are all" to "is"), so its literal text is
    # shortened word by word until it is found. The last occurrence counts: some tasks come with
    # a worked example of the same form in front.
    prefix_at = _last(prompt, task.answer_prefix.partition("{")[0]) if task.answer_prefix else -1
    end = prefix_at if prefix_at >= 0 else len(prompt)
    literal = task.template.partition("{context}")[2].partition("{")[0]
    question_at = _last(prompt[:end], literal)
    if question_at <= 0:
        raise BenchmarkError(
            f"The question of a prompt of {task.name} was not found.",
            f"{ruler_package.DISTRIBUTION} {ruler_package.version()} is not as expected.",
        )
    return prompt[:question_at], prompt[question_at:end], prompt[end:]


def _last(text: str, literal: str) -> int:
    """Last place of the literal, or of the longest beginning of it that is there."""
    lead = len(literal) - len(literal.lstrip())
    while literal.strip():
        at = text.rfind(literal)
        if at >= 0:
            return at
        shorter = literal.rstrip().rpartition(" ")[0]
        literal = shorter if len(shorter) > lead else ""
    return -1


def _fitting(task: Task, limit: int, samples: int, seed: int, tokenizer: Path) -> list[Prompt]:
    """As many prompts as asked for; questions whose own documents are too long are left out."""
    found: list[Prompt] = []
    before = 0
    while len(found) < samples:
        if before + samples - len(found) > RESERVED_QUESTIONS:
            if not found:
                raise _too_short(task, limit)
            raise _learned_from(
                task,
                f"{task.name} has {len(found)} questions that fit into {limit} tokens before "
                f"question {before}, and {samples - len(found)} more are wanted",
            )
        made, stuck = _generate(task, [limit], samples - len(found), before, seed, tokenizer)
        if stuck is None:
            return found + made[limit]
        sample = stuck[1]
        if sample == NO_SAMPLE:
            raise _too_short(task, limit)
        if sample:
            # The ones before it are fine, but a generator writes when it has made all.
            found += _generate(task, [limit], sample, before, seed, tokenizer)[0][limit]
        before += sample + 1
    return found


def _generate(
    task: Task, limits: Sequence[int], samples: int, before: int, seed: int, tokenizer: Path
) -> tuple[dict[int, list[Prompt]], tuple[int, int] | None]:
    """Prompts by limit, or the limit and number of the one that cannot be made."""
    with tempfile.TemporaryDirectory(prefix="allmem-ruler-") as folder:
        command = [
            sys.executable, "-m", "allmem_runtime.evaluation.ruler_host",
            str(tokenizer), str(task.script), ",".join(str(limit) for limit in limits),
            "--save_dir", folder, "--save_name", task.name, "--subset", "validation",
            "--tokenizer_path", str(tokenizer), "--tokenizer_type", "hf",
            "--tokens_to_generate", str(task.tokens),
            "--num_samples", str(samples), "--random_seed", str(seed),
            *task.arguments,
            *(["--pre_samples", str(before)] if task.script.name == _QUESTION_ANSWERING else []),
            "--template", task.template + task.answer_prefix,
        ]  # fmt: skip
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [""]
        if done.returncode == STUCK:
            limit, sample = said[-1].split()
            return {}, (int(limit), int(sample))
        if done.returncode == MISSING:
            raise BenchmarkError(f"{task.name} needs the package {said[-1]!r}.", REMEDY)
        if done.returncode:
            raise BenchmarkError(
                f"The generator of {task.name} failed: {said[-1]}",
                f"Is {ruler_package.DISTRIBUTION} complete? {REMEDY}",
            )
        return {limit: _read(Path(folder) / str(limit) / task.name) for limit in limits}, None


def _read(folder: Path) -> list[Prompt]:
    text = (folder / "validation.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _learned_from(task: Task, what: str) -> BenchmarkError:
    return BenchmarkError(
        f"{what}, but only the first {RESERVED_QUESTIONS} questions are kept out of training.",
        f"Ask for fewer --samples, or leave {task.name} out of --tasks.",
    )


def _too_short(task: Task, length: int) -> BenchmarkError:
    return BenchmarkError(
        f"{task.name} cannot be made for {length} tokens with this tokenizer.",
        "Leave the task out, or ask for longer texts.",
    )
