"""``allmem prepare``: lay weights out for this CPU once, so that every later start maps them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from allmem_runtime.cli.ending import said_when_ended
from allmem_runtime.cli.exit_codes import OK
from allmem_runtime.cli.messages import put, put_json
from allmem_runtime.cli.option_flags import option_flags
from allmem_runtime.cli.shared_options import command, json_flag, model_argument
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.errors import StorageError
from allmem_runtime.quantities import format_bytes

if TYPE_CHECKING:
    from allmem_runtime.bench.start import How, Starts


@command()
@model_argument
@option_flags(EngineOptions, "engine", only=("operators", "threads"))
@click.option("--again", is_flag=True, help="Do it although it was done.")
@click.option("--remove", is_flag=True, help="Delete what was prepared of this model.")
@click.option(
    "--measure/--no-measure",
    default=True,
    show_default=True,
    help="Start the model with and without, and compare times, memory and answers.",
)
@json_flag()
def prepare(
    model: Path,
    engine: EngineOptions,
    again: bool,
    remove: bool,
    measure: bool,
    as_json: bool,
) -> int:
    """Lay the weights of MODEL out for this CPU, so that later starts map them from a file.

    Opening a model copies most weights into a layout that suits the CPU, into memory of the
    process. Prepared weights are mapped instead: the start is faster, and their memory is shared
    by all processes that use the model and given back when something else needs it.

    They lie in the folder `prepared` of the model, or in the user's cache folder where the model's
    cannot be written, and take about twice the space of the weights. They hold for one CPU, one
    version of ONNX Runtime and one operator library; others are ignored with a notice, and this
    command makes new ones. A model needs nothing of this to run.
    """
    from allmem_ops.library import LibraryInfo
    from allmem_runtime.engine import preparing
    from allmem_runtime.engine.operators import find_library
    from allmem_runtime.errors import OperatorLibraryError
    from allmem_runtime.files.package import open_package

    package = open_package(model)
    if remove:
        removed = preparing.remove(package)
        if as_json:
            click.echo(json.dumps({"removed": [str(folder) for folder in removed]}, indent=2))
        else:
            for folder in removed:
                put(f"Deleted {folder}.")
            if not removed:
                put("Nothing was prepared of this model.")
        return OK
    library = find_library(engine.operators, package.manifest.operators)
    if isinstance(library, str) and engine.operators != "auto":
        raise OperatorLibraryError(
            f"The native operators cannot be used: {library}.",
            "Install the package with its library, or use --operators portable.",
        )
    used = library.path if isinstance(library, LibraryInfo) else None
    with said_when_ended("nothing was prepared"):
        folder = preparing.prepare(package, used, threads=engine.threads, again=again)
    values: dict[str, Any] = {"folder": str(folder), "bytes": preparing.disk_bytes(folder)}
    lines = [f"Prepared in {folder}, {format_bytes(values['bytes'])}."]
    if measure:
        from allmem_runtime.bench.start import measure_starts

        starts = measure_starts(model, engine, ("exported", "prepared"))
        _check(folder, starts)
        values |= {how: found.as_json() for how, found in starts.items()}
        lines += _table(starts)
    put_json(values) if as_json else put(*lines)
    return OK


def _check(folder: Path, starts: dict[How, Starts]) -> None:
    """Prepared weights must be used, and give the very logits that the others give."""
    import shutil

    import numpy as np

    exported, prepared = starts["exported"], starts["prepared"]
    problem = ""
    if not prepared.folder:
        problem = " ".join(prepared.notices) or "nothing was found"
    elif not np.array_equal(exported.logits, prepared.logits):
        problem = "they give other logits than the exported ones"
    if problem:
        shutil.rmtree(folder, ignore_errors=True)
        raise StorageError(
            f"The prepared weights are of no use and were deleted: {problem}.",
            "The model runs without them; please report this.",
        )


def _table(starts: dict[How, Starts]) -> list[str]:
    head = ("first token", "processor", "own memory", "resident")
    rows = ["", f"{'':10}{head[0]:>22}" + "".join(f"{name:>13}" for name in head[1:])]
    for how, found in starts.items():
        spread = f"({found.seconds[0]:.2f} to {found.seconds[-1]:.2f})"
        seconds = f"{found.median:.2f} s {spread}"
        cells = (
            f"{found.processor[0]:.2f} s",
            format_bytes(found.own),
            format_bytes(found.resident),
        )
        rows.append(f"{how:10}{seconds:>22}" + "".join(f"{cell:>13}" for cell in cells))
    parts = ", ".join(f"{name} {value:.2f}" for name, value in starts["prepared"].parts.items())
    rows.append(
        "From the start of the process to its first token, least processor time; memory after it, "
        f"{format_bytes(starts['prepared'].state)} of state included."
    )
    rows.append(
        "Own memory is backed by no file; the rest of resident memory is shared and can be dropped."
    )
    rows.append(f"Seconds of the fastest prepared start: {parts}.")
    return rows
