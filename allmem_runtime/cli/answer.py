"""``allmem answer``: a model's own answers to a file of prompts, as training data."""

from __future__ import annotations

from pathlib import Path

import click

from allmem_runtime.cli.messages import put, say
from allmem_runtime.cli.option_flags import FilePath, tokens
from allmem_runtime.cli.shared_options import command, engine_flags, model_argument
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.errors import StorageError, UsageError
from allmem_runtime.quantities import counted


@command()
@model_argument
@click.argument("prompts", type=FilePath())
@click.argument("output", type=FilePath(dir_okay=False))
@click.option("--temperature", default=0.0, show_default=True,
              help="0 takes the most probable token every time.")  # fmt: skip
@click.option(
    "--top-k", default=0, show_default=True, help="Draw from this many tokens; 0 is no limit."
)
@click.option(
    "--top-p",
    default=1.0,
    show_default=True,
    help="Draw from the likeliest tokens of this total share.",
)
@click.option(
    "--min-p",
    default=0.0,
    show_default=True,
    help="Leave out tokens below this fraction of the likeliest.",
)
@click.option("--seed", default=0, show_default=True, help="The same seed, the same answers.")
@click.option("--max-tokens", default=256, show_default=True, type=tokens(),
              help="Longest answer in tokens.")  # fmt: skip
@click.option("--longest", type=tokens(), help="Leave prompts with more tokens out, such as 8k.")
@click.option("--limit", type=click.IntRange(1), help="Answer the first prompts only.")
@engine_flags
@click.option("--quiet", is_flag=True, help="No progress.")
def answer(
    model: Path, prompts: Path, output: Path, temperature: float, top_k: int, top_p: float,
    min_p: float, seed: int, max_tokens: int, longest: int | None, limit: int | None,
    engine: EngineOptions, quiet: bool,
) -> None:  # fmt: skip
    """Answer PROMPTS, a file of conversations, with MODEL and keep the answers in OUTPUT.

    A line of PROMPTS is {"messages": [{"role": "user", "content": "…"}, …]}. Its last turn of the
    user is answered, in place of what answers it there. OUTPUT has the same form, which
    `allmem data` takes as a source of kind "chat": so a student is taught on its own answers.
    Each answer is written when it is made; after Ctrl-C or a kill the same command goes on.
    """
    from allmem_runtime.evaluation.chat_lines import AnswerFile, read_prompts
    from allmem_runtime.evaluation.own_answers import answer_prompts, answered_by
    from allmem_runtime.generation.sampling import Sampling
    from allmem_runtime.model import load

    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed,
        max_tokens=max_tokens,
    )  # fmt: skip
    if not output.parent.is_dir():
        raise StorageError(f"There is no folder {output.parent}.", "Make it, or name another.")
    if output.exists() and prompts.exists() and output.samefile(prompts):
        raise UsageError(f"{output} is the file of prompts.", "Name another file for the answers.")
    asked = list(read_prompts(prompts))[:limit]
    if not asked:
        raise UsageError(f"{prompts} holds no prompt.", "Give one conversation a line.")
    opened = load(model, engine)
    file = AnswerFile(output, answered_by(opened, sampling))

    def tell(line: str) -> None:
        if not quiet:
            say(line)

    tally = answer_prompts(opened, asked, file, sampling, longest=longest, say=tell)
    said = f"{counted(tally.answered, 'answer')} written to {output}"
    if tally.there:
        said += f", {tally.there} were there already"
    if tally.too_long:
        said += f", {counted(tally.too_long, 'prompt')} longer than --longest left out"
    if tally.cut:
        said += f"; {tally.cut} ended at --max-tokens"
    put(said)
