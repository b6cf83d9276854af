"""``allmem-run``: read texts of any length, then answer."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import ExitStack
from typing import Any, BinaryIO, TextIO

import click

from allmem_runtime.cli.exit_codes import OK, exit_code_of
from allmem_runtime.cli.option_flags import FilePath, ParsedType, tokens
from allmem_runtime.cli.options import DEFAULT_PASSAGES, DEFAULT_PAUSE, ON_CHANGE, RunOptions
from allmem_runtime.cli.shared_options import command, engine_flags, json_flag, model_argument
from allmem_runtime.cli.signals import ENDING, Interrupts
from allmem_runtime.cli.standard_input import announced, has_text, unbuffered, was_given
from allmem_runtime.cli.standard_streams import drawing
from allmem_runtime.cli.terminal_lines import open_terminal
from allmem_runtime.documents.watcher import Watcher
from allmem_runtime.engine.threads import no_blas_threads
from allmem_runtime.errors import AllMemError, SessionFileError, UsageError
from allmem_runtime.files.session_lock import saving_alone
from allmem_runtime.progress import Printer, printer
from allmem_runtime.text.encodings import checked_encoding
from allmem_runtime.text.sources import Source

_SAMPLING = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")

_HELP = """Read SOURCES one after the other, then answer.

A SOURCE is a text or Markdown file, a document, a folder, a pattern such as 'notes/*.md', or - for
standard input, which is also read when something is piped in and neither a SOURCE nor a saved
session is named. Documents are PDF, web pages, books (EPUB), DOCX, ODT, RTF, notebooks, letters,
subtitles and archives; some need `pip install 'allmem-runtime[documents]'`. Of a folder all files
are read but hidden ones; what cannot be read is told and left out, and what was changed is read
anew. A file that somebody has begun to read, as in a loop of `while read`, is left alone; in a loop
over a pipe, name a SOURCE or give `< /dev/null`. Text is read chunk by chunk; the state has the
same size after a million tokens as after one.

Each --prompt is answered on a copy of what was read, so questions never disturb the reading.
Without --prompt, a terminal gets a chat; what is said there is kept until you leave, and
longer if you /save it. A pasted text is one question, however many lines it has; Esc and then Enter
begins a new line, and /help tells the rest.

With --session the state is saved after reading and after Ctrl-C. The same command goes on where
it stopped; with other sources it reads those too. Each source is known by its path and by what was
read of it: an unchanged one is not read again, of one that grew the rest is read, and one that was
changed, or is gone before its end, ends the command unless --changed says what to do. What was read
stays: a source that is read anew is added.

What is read is also kept as text, beside the --session file as FILE.passages, or in a temporary
file. Before a question, the passages that fit it are read again, and the places where they stand
are printed after the answer. --no-text keeps none.

With --stream the source may never end. Each time nothing comes for --pause seconds, the prompts are
answered, and again when more came, and once more at the end or on Ctrl-C. Without
--prompt, a chat opens at the end or on Ctrl-C. Standard input is the source if none is named, and
is taken as new text even if the session has read something before.

With --watch, folders, patterns and files are followed: what is new, what was appended to a log, and
what was changed is read once it stays as it is for --pause seconds, and then the prompts are
answered again. Ctrl-C ends it; without --prompt, a chat opens then.

Ctrl-C ends what is being done, keeping what was read, and what had arrived from a pipe, in the
session; a second Ctrl-C quits at once.
Answers go to standard output, all else to standard error."""


@command(_HELP)
@model_argument
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("--stream", is_flag=True, help="The source may never end; answer at its pauses.")
@click.option("--watch", is_flag=True, help="Go on with what is new in the sources, until Ctrl-C.")
@click.option("--prompt", "prompts", multiple=True, help="A question; may be given repeatedly.")
@click.option(
    "--session",
    type=FilePath(),
    help="Session file: gone on from if it is there, saved after reading.",
)
@click.option("--system", help="Instruction that opens the conversation.")
@engine_flags
@click.option("--max-tokens", type=tokens(), help="Longest answer in tokens.")
@click.option("--temperature", type=float, help="0 takes the most probable token every time.")
@click.option("--top-k", type=int, help="Draw from this many tokens; 0 is no limit.")
@click.option("--top-p", type=float, help="Draw from the likeliest tokens of this total share.")
@click.option("--min-p", type=float, help="Leave out tokens below this fraction of the likeliest.")
@click.option("--repetition-penalty", type=float, help="Above 1, avoid what was just said.")
@click.option("--seed", type=int, help="The same seed gives the same answer.")
@click.option("--stop", multiple=True, help="Text that ends an answer; may be given repeatedly.")
@click.option("--encoding", type=ParsedType(checked_encoding, "NAME"),
              help="Of the sources.  [default: UTF-8, or what their bytes tell]")  # fmt: skip
@click.option("--changed", type=click.Choice(ON_CHANGE), default="stop", show_default=True,
              help="A source that was changed since it was read, or is gone before its end: stop, "
              "read it anew, or skip it.")  # fmt: skip
@click.option(
    "--pause",
    type=float,
    help="With --stream, answer when nothing came for so many seconds; with --watch, look as "
    f"often.  [default: {DEFAULT_PAUSE:g}]",
)
@click.option("--passages", type=click.IntRange(0, 64), default=DEFAULT_PASSAGES,
              show_default=True,
              help="Most passages read again before a question, twice as many for several things; "
              "0 for none.")  # fmt: skip
@click.option("--text/--no-text", default=True, show_default=True,
              help="Keep what is read as text too, and find passages in it.")  # fmt: skip
@click.option("--meter", is_flag=True,
              help="After reading, tell how much of it the state still holds.")  # fmt: skip
@json_flag("One JSON event a line on standard output.")
@click.option("--quiet", is_flag=True, help="Nothing but answers and errors.")
def run(**values: Any) -> int:
    """Collect the options and run; the help text is above."""
    given = {name: values.pop(name) for name in _SAMPLING}
    sampling = {name: value for name, value in given.items() if value is not None}
    stop = values.pop("stop")
    if stop:
        sampling["stop"] = stop
    options = RunOptions(sampling=sampling, **values)
    out = printer(drawing(sys.stderr), sys.stdout, as_json=options.as_json, quiet=options.quiet)
    try:
        return _run(options, out)
    except AllMemError as error:
        out.event("error", message=error.message, hint=error.hint, exit_code=error.exit_code)
        raise


def _run(options: RunOptions, out: Printer) -> int:
    no_blas_threads()
    from allmem_runtime.cli.opening import open_sources
    from allmem_runtime.generation.sampling import Sampling

    options.check()
    Sampling(**options.sampling)  # type: ignore[arg-type]  # refuse bad values before loading
    stdin = unbuffered(sys.stdin)
    names, implied = _names(options, stdin)
    terminal = None
    if not options.prompts and not options.as_json:
        terminal = open_terminal(stdin_is_taken="-" in names)
    resumed = options.session is not None and options.session.exists()
    _refuse_nothing_to_do(options, names, resumed, terminal)
    if "-" not in names and has_text(stdin):
        why = "sources are named" if names else f"{options.session} exists"
        out.notice(f"Standard input is not read: {why}. Name - to read it too.")
    stdin = announced(stdin, out.notice)
    session = options.session if resumed else None
    watcher = Watcher(names, options.pause or DEFAULT_PAUSE) if options.watch else None
    sources = open_sources(
        names,
        stdin,
        session,
        out.notice,
        options.encoding or "",
        live=options.stream,
        ahead=True,
    )

    # ONNX Runtime takes a moment to load; a wrong option should not have to wait for it.
    from allmem_runtime.cli.following import follow
    from allmem_runtime.cli.run_session import Work

    logging.getLogger("allmem_runtime").addHandler(logging.NullHandler())
    with Interrupts(signals=ENDING) as interrupts:
        with ExitStack() as stack:
            if options.session is not None and names:  # questions alone save nothing
                stack.enter_context(saving_alone(options.session, out.notice))
                resumed = options.session.exists()  # another process may just have made it
            keeps = any(source.path is not None for source in sources)
            work = Work(options, out, interrupts, resumed=resumed, keeps_text=keeps)
            finished = work.read(sources, may_be_empty=implied)
            watched = watcher is not None and finished
            if watcher is not None and finished:
                follow(work, watcher, interrupts, out, options.encoding or "")
        endless = watched or (not finished and _endless(options, sources))
        if endless and interrupts.last == signal.SIGINT:
            interrupts.rearm()
        if options.meter:
            work.meter()
        if not watched:
            work.answer()
    if terminal is not None and not interrupts.requested:
        work.chat(terminal)
        interrupts.ever = False  # it ended the reading, and the chat was left as it should be
    if work.unsaved is not None:
        raise work.unsaved
    return exit_code_of(interrupts.last) if interrupts.ever else OK


def _endless(options: RunOptions, sources: list[Source]) -> bool:
    """Whether Ctrl-C is the usual way to end the reading."""
    return options.stream and any(source.stream is not None for source in sources)


def _names(options: RunOptions, stdin: BinaryIO) -> tuple[list[str], bool]:
    """What to read, and whether standard input is read though nobody named it."""
    if options.sources:
        return list(options.sources), False
    if options.stream:
        return ["-"], False
    saved = options.session is not None and options.session.exists()
    return (["-"], True) if was_given(stdin) and not saved else ([], False)


def _refuse_nothing_to_do(
    options: RunOptions, names: list[str], resumed: bool, terminal: TextIO | None
) -> None:
    if options.session is not None and not resumed and not names and terminal is None:
        raise SessionFileError(
            f"There is no session {options.session}.", "Name a SOURCE to read into it."
        )
    if not names and not options.prompts and terminal is None:
        raise UsageError(
            "There is nothing to do: no SOURCE, no --prompt, and no terminal to chat at.",
            "Name a file, or give a --prompt.",
        )
