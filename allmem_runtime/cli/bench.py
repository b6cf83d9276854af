"""``allmem bench``: how fast a model is on this machine, whatever it has read before."""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from allmem_runtime.cli.exit_codes import INTERRUPTED, OK
from allmem_runtime.cli.messages import draw, put, say
from allmem_runtime.cli.option_flags import FilePath, token_list, tokens
from allmem_runtime.cli.shared_options import (
    check_folder_of,
    command,
    engine_flags,
    json_file_option,
    model_argument,
    plot_file_option,
)
from allmem_runtime.cli.signals import Interrupts
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.quantities import counted

if TYPE_CHECKING:
    from allmem_runtime.bench.measure import Meter
    from allmem_runtime.bench.reading import Readings
    from allmem_runtime.bench.report import Report
    from allmem_runtime.model import Model
    from allmem_runtime.session.session import Session

NEAR = 8192
"""The depth the deepest one is compared with, or the first above 0 if it was not asked for."""


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """The command line of ``allmem bench``."""

    model: Path
    depths: list[int]
    prompt_sizes: list[int]
    written: int
    repeats: int
    text: Path | None
    keep: Path | None
    engine: EngineOptions
    json_path: Path | None
    plot_path: Path | None
    quiet: bool

    def say(self, text: str) -> None:
        """Tell a person, unless told not to."""
        if not self.quiet:
            say(text)


@command()
@model_argument
@click.option(
    "--depths",
    type=token_list(0),
    default="0,2k,8k",
    show_default=True,
    help="Tokens read before measuring, such as 0,2k,8k,32k,128k,1M.",
)
@click.option("--prompt-sizes", type=token_list(), default="32,512", show_default=True,
              help="Tokens of prompts.")  # fmt: skip
@click.option(
    "--tokens",
    "written",
    default=32,
    show_default=True,
    type=tokens(1, 4096),
    help="Tokens written for one figure.",
)
@click.option(
    "--repeats",
    default=5,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Figures of each kind; the median and both ends are told.",
)
@click.option("--text", type=FilePath(), help="Read this.  [default: Python's manual]")
@click.option(
    "--keep",
    type=FilePath(file_okay=False),
    metavar="FOLDER",
    help="Keep readings here, and use them again.",
)
@engine_flags
@json_file_option("Write all figures to this file, after each depth.")
@plot_file_option("Draw speed and memory against tokens read (needs matplotlib).")
@click.option("--quiet", is_flag=True, help="Nothing but the table.")
def bench(**values: Any) -> int:
    """Measure how fast MODEL reads and writes, and what memory it takes, at each depth.

    A depth is reached by reading a text; one that is too short begins again. Then prompts are read
    and tokens written several times, the state being taken back each time. Memory is that of the
    process with two states: the one that reads and its copy.

    Rows are printed as they come. Ctrl-C keeps what was measured.
    """
    options = BenchOptions(**values)
    for path in (options.json_path, options.plot_path):
        check_folder_of(path)
    if options.plot_path is not None:
        from allmem_runtime.plotting import check_plot

        check_plot(options.plot_path)
    with Interrupts() as interrupts, ExitStack() as stack:
        return _Run(options, interrupts, stack).run()


class _Run:
    """One benchmark, with its model loaded."""

    def __init__(
        self,
        options: BenchOptions,
        interrupts: Interrupts,
        stack: ExitStack,
    ) -> None:
        # ONNX Runtime takes a moment to load; a wrong option should not have to wait for it.
        from allmem_runtime.bench.measure import Meter, Work
        from allmem_runtime.bench.reading import Readings
        from allmem_runtime.bench.report import Report
        from allmem_runtime.bench.texts import read_text
        from allmem_runtime.model import load

        self._options = options
        self._depths = options.depths
        self._prompts = options.prompt_sizes
        self._interrupts = interrupts
        self._stack = stack
        began = time.perf_counter()
        self._model: Model = load(options.model, options.engine)
        seconds = time.perf_counter() - began
        self._text = read_text(options.text, self._model.tokenizer)
        self._readings: Readings = Readings(
            self._model, self._text, options.keep, self._stopped, self._progress
        )
        work = Work(options.prompt_sizes, options.written, options.repeats)
        self._meter: Meter = Meter(self._text, work, self._stopped)
        self._report: Report = Report(
            self._model, self._text, options.engine.threads, seconds, options.json_path
        )
        self._last_progress = 0.0

    def run(self) -> int:
        """All of it; the exit code."""
        from allmem_runtime.bench import report
        from allmem_runtime.bench.reading import Stopped

        model, say = self._model, self._options.say
        say(f"{model.name} on {model.device}, {model.operators} operators: {model.device.why}")
        for notice in model.engine.notices:
            say(notice)
        if max(self._depths) + max(self._prompts) > len(self._text.ids):
            count = counted(len(self._text.ids), "token")
            say(f"{self._text.name} has {count} and is read repeatedly.")
        code = OK
        try:
            put(report.heading(self._prompts))
            self._measure()
        except Stopped:
            self._report.interrupted()
            code = INTERRUPTED
        if self._options.plot_path is not None and self._report.rows:
            report.plot(self._report, self._options.plot_path)
            say(f"drew {self._options.plot_path}")
        return code

    def _measure(self) -> None:
        from allmem_runtime.bench import report

        session = self._model.session(undo=False)
        near: tuple[Path, int] | None = None
        reference = self._reference()
        for depth in self._depths:
            with self._interrupts.also(session.cancel):
                session, reached = self._readings.reach(session, depth)
            with self._interrupts.also(session.cancel):
                row = self._meter.row(session, reached)
                self._report.row(row)
                put(report.line(row))
                sys.stdout.flush()
            if depth == reference:
                near = self._kept(session, depth), depth
        if near is not None:
            self._compare(near, session)

    def _reference(self) -> int | None:
        """The depth that the deepest one is compared with in the end."""
        candidates = [depth for depth in self._depths[:-1] if depth]
        if not candidates:
            return None
        return NEAR if NEAR in candidates else candidates[0]

    def _kept(self, session: Session, depth: int) -> Path:
        """A file with the reading of a depth: a second state in memory would be counted."""
        path = self._readings.path(depth)
        if path is None:
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="allmem-bench-"))
            path = Path(folder) / "near.allmem"
            session.save(path)
        return path

    def _compare(self, near: tuple[Path, int], far: Session) -> None:
        from allmem_runtime.bench import report
        from allmem_runtime.bench.measure import compare

        session = self._readings.opened(*near)
        with self._interrupts.also(session.cancel), self._interrupts.also(far.cancel):
            ratios = compare(self._meter, session, far, self._prompts[-1])
        self._report.ratios(ratios)
        put(report.ratio_line(ratios))

    def _stopped(self) -> bool:
        return self._interrupts.requested

    def _progress(self, position: int, depth: int) -> None:
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if self._options.quiet or now - self._last_progress < (0.5 if terminal else 10):
            return
        self._last_progress = now
        text = f"reading {position:,} of {depth:,} tokens"
        draw(text) if terminal else say(text)
