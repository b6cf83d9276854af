"""Where errors become one line on stderr and an exit code; nothing below it exits."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

import click

from allmem_runtime.cli.standard_streams import open_closed, telling, unfailing
from allmem_runtime.errors import AllMemError, StorageError
from allmem_runtime.printable import printable

OK, ERROR, USAGE, INTERRUPTED = 0, 1, 2, 130


def exit_code_of(number: int) -> int:
    """The exit code after a signal, as shells give it: 130 after Ctrl-C."""
    return 128 + number


# What `pip install 'allmem-runtime[export]'` adds; the exporters import them when they work.
_EXPORT_PACKAGES = {
    "allmem_exporters", "gguf", "onnx", "onnx_ir", "onnxscript", "optimum", "torch",
    "transformers",
}  # fmt: skip


def run_to_exit(command: click.Command, name: str, arguments: list[str] | None) -> NoReturn:
    """Run a command and leave the process with its exit code.

    Args:
        command: what to run.
        name: what it was called, for messages.
        arguments: without the program's name; None takes those of the process.
    """
    open_closed()
    _tolerate_any_text()
    sys.stderr = unfailing(sys.stderr)
    sys.stdout = telling(sys.stdout)
    sys.exit(_code(command, name, arguments))


def _code(command: click.Command, name: str, arguments: list[str] | None) -> int:
    try:
        result = command.main(arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else OK
    except AllMemError as error:
        if isinstance(error, StorageError):
            _to_nowhere_if_full()
        return _fail(name, str(error), error.exit_code)
    except click.UsageError as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # from 8.2 on
            click.echo(error.format_message(), err=True)
            return USAGE
        path = error.ctx.command_path if error.ctx else name
        return _fail(name, f"{error.format_message()} Try `{path} --help`.", USAGE)
    except click.ClickException as error:
        return _fail(name, error.format_message(), ERROR)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXPORT_PACKAGES:
            raise
        hint = "Install what it needs with `pip install 'allmem-runtime[export]'`."
        return _fail(name, f"The package {package} is not installed. {hint}", ERROR)
    except (KeyboardInterrupt, click.Abort):
        with contextlib.suppress(OSError):
            click.echo(f"{name}: stopped.", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output left. What is still buffered has nowhere to go either.
        _to_nowhere()
        return ERROR


def _fail(name: str, text: str, code: int) -> int:
    with contextlib.suppress(OSError):
        click.echo(printable(f"{name}: error: {' '.join(text.split())}"), err=True)
    return code


def _tolerate_any_text() -> None:
    """Let no locale turn an answer into an error; files and pipes get UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            if stream.isatty():
                reconfigure(errors="replace")
            else:
                reconfigure(encoding="utf-8", errors="replace")


def _to_nowhere_if_full() -> None:
    """What could not be written must not be tried again when the interpreter ends."""
    try:
        sys.stdout.flush()
    except (AllMemError, OSError, ValueError, AttributeError):
        _to_nowhere()


def _to_nowhere() -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
