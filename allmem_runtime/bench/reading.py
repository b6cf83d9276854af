"""Bring a session to a depth by reading, or by opening a reading that was kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from allmem_runtime.bench.texts import Text
from allmem_runtime.errors import SessionFileError, StorageError
from allmem_runtime.model import Model
from allmem_runtime.session.session import Session

SLICE_CHUNKS = 4
"""Chunks of text between two looks at the clock and at Ctrl-C."""


class Stopped(Exception):
    """Ctrl-C: what was measured so far is all there is."""


@dataclass(frozen=True, slots=True)
class Reached:
    """How a depth was reached.

    Attributes:
        tokens: read just now.
        seconds: it took.
        kept: from a file that was kept.
    """

    tokens: int
    seconds: float
    kept: bool = False


class Readings:
    """Sessions at depths of one text.

    Args:
        model: reads.
        text: is read.
        folder: where readings are kept, or None.
        stopped: whether to stop.
        progress: told the position and the depth that is wanted, now and then.
    """

    def __init__(
        self,
        model: Model,
        text: Text,
        folder: Path | None,
        stopped: Callable[[], bool],
        progress: Callable[[int, int], None] = lambda position, depth: None,
    ) -> None:
        self._model = model
        self._text = text
        self._folder = folder
        self._stopped = stopped
        self._progress = progress
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(
                    f"The folder {folder} could not be made: {error.strerror}.", "Name another."
                ) from None

    def path(self, depth: int) -> Path | None:
        """The file of a reading; its name tells the model and the text."""
        if self._folder is None or not depth:
            return None
        model = self._model.package.digest[:16]
        return self._folder / f"{model}-{self._text.digest[:16]}-{depth}.allmem"

    def reach(self, session: Session, depth: int) -> tuple[Session, Reached]:
        """Go on to a depth.

        Args:
            session: at a smaller depth of the same text.
            depth: tokens read when it is done.

        Returns:
            The session, another one where a reading was kept, and how it got there.

        Raises:
            SessionFileError: the file that was kept is not what its name says.
            StorageError: the reading cannot be kept.
            Stopped: Ctrl-C came.
        """
        path = self.path(depth)
        if path is not None and path.is_file() and session.position < depth:
            return self.opened(path, depth), Reached(0, 0.0, kept=True)
        first, began = session.position, time.perf_counter()
        step = SLICE_CHUNKS * self._model.manifest.chunk
        while session.position < depth:
            self._progress(session.position, depth)
            at = session.position
            # Slices end at chunk boundaries, where pieces end anyway.
            end = min(depth, at - at % step + step)
            session.feed(self._text.part(at, end))
            if self._stopped():
                raise Stopped
        reached = Reached(depth - first, time.perf_counter() - began)
        if path is not None and first < depth:
            session.save(path)
        return session, reached

    def opened(self, path: Path, depth: int) -> Session:
        """A reading that was kept.

        Raises:
            SessionFileError: it is damaged, of another model, or of another depth.
        """
        session = self._model.open(path, undo=False)
        if session.position != depth or session.pending:
            raise SessionFileError(
                f"{path} has read {session.position:,} tokens, not {depth:,}.",
                "Remove it, and it will be made again.",
            )
        return session
