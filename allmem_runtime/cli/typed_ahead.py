"""Keys that are typed or pasted while an answer is being written: kept for the next line.

A terminal left to itself would cut them at 4,095 characters, and show them amid the answer.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from prompt_toolkit.input import Input
from prompt_toolkit.input.typeahead import store_typeahead
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.output import Output
from prompt_toolkit.utils import is_dumb_terminal

from allmem_runtime.cli.leaving import put_back


class TypedAhead:
    """Takes keys from a terminal whenever no line editor does, until its ``with`` block ends.

    Args:
        keys: the editor's input.
        screen: the editor's output.
    """

    def __init__(self, keys: Input, screen: Output) -> None:
        self._input = keys
        self._screen = screen
        self._pressed: list[KeyPress] = []
        self._ending = ExitStack()
        self._stop: Callable[[], None] = lambda: None

    def __enter__(self) -> TypedAhead:
        if sys.platform != "win32":  # whose console keeps whole keys, and cuts nothing
            self._ending.enter_context(put_back(lambda: self._mark_pastes(False)))
            self._ending.enter_context(put_back(_set_by_key(self._input.fileno())))
            self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._ending.close()

    @contextmanager
    def given(self) -> Iterator[None]:
        """Let the editor have the keys while the body runs, those first that came before."""
        self._stop()
        store_typeahead(self._input, self._pressed)
        self._pressed = []
        try:
            yield
        finally:
            if sys.platform != "win32":
                self._mark_pastes(True)
                self._begin()

    def _begin(self) -> None:
        reader, writer = os.pipe()
        thread = threading.Thread(
            target=self._take, args=(reader,), name="allmem keys", daemon=True
        )
        thread.start()

        def stop() -> None:
            self._stop = lambda: None
            os.close(writer)  # which the thread notices
            thread.join()
            os.close(reader)

        self._stop = stop

    def _take(self, stop: int) -> None:
        terminal = self._input.fileno()
        while not self._input.closed:
            ready, _, _ = select.select([terminal, stop], [], [])
            if stop in ready:
                return
            self._pressed += self._input.read_keys()

    def _mark_pastes(self, wanted: bool) -> None:
        """Have the terminal say what is pasted; the editor forgets that after each line."""
        if is_dumb_terminal():
            return
        (self._screen.enable_bracketed_paste if wanted else self._screen.disable_bracketed_paste)()
        self._screen.flush()


def _set_by_key(terminal: int) -> Callable[[], None]:
    """Have a terminal give each key as it comes and show none; what undoes that.

    Ctrl-C and its like are signals as before.
    """
    import termios

    before: list[Any] = termios.tcgetattr(terminal)
    changed = list(before)
    changed[0] &= ~termios.ICRNL  # as in the editor: Enter, and line ends of what is pasted
    changed[3] &= ~(termios.ICANON | termios.ECHO)
    changed[6] = list(before[6])
    changed[6][termios.VMIN], changed[6][termios.VTIME] = 1, 0
    termios.tcsetattr(terminal, termios.TCSANOW, changed)
    return lambda: termios.tcsetattr(terminal, termios.TCSANOW, before)
