"""The one place where tokens meet a state: pieces, their cuts, failure and cancelling.

It knows nothing of text, conversations or locks.
"""

from __future__ import annotations

import operator
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np

from allmem_runtime.config import Manifest
from allmem_runtime.engine import interrupts
from allmem_runtime.engine.buffers import DeviceBuffers, DeviceTensors, Logits
from allmem_runtime.engine.engine import Engine
from allmem_runtime.errors import SessionStateError, UsageError
from allmem_runtime.state import Place, not_finite, zero

_MEMORY = ("weights", "momentum", "gradient")
_RECOVER = "Take the session back with rollback(), or start again with reset()."


class Cursor:
    """A state and its place in the text, moved on piece by piece.

    Args:
        engine: runs the steps.
        manifest: of the same model.
        place: where to begin; the tensors are blank.
        lock: taken for each step.
        piece: most tokens fed at once.

    Attributes:
        place: where the state stands.
        failure: why the state cannot be trusted; empty while it can.
        stop: set from any thread to end the work at the next boundary.
        piece: most tokens fed at once.
        fed: is told after each step how many tokens it fed.
    """

    def __init__(
        self,
        engine: Engine,
        manifest: Manifest,
        place: Place,
        lock: AbstractContextManager[None],
        piece: int,
    ) -> None:
        self.engine = engine
        self.manifest = manifest
        self.place = place
        self.failure = ""
        self.stop = threading.Event()
        self.fed: Callable[[int], None] | None = None
        self._lock = lock
        self._buffers: DeviceBuffers = engine.buffers()
        weakref.finalize(self, engine.give_back, self._buffers).atexit = False
        self.piece = piece

    @property
    def tensors(self) -> DeviceTensors:
        """The state after the last step."""
        return self._buffers.current

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, second set included where one is needed."""
        return self._buffers.nbytes

    def queue(self, ids: Sequence[int]) -> None:
        """Put tokens behind those that wait to be fed.

        Raises:
            UsageError: an id is no token of this model; none was queued.
        """
        vocab = self.manifest.backbone.vocab_size
        try:
            tokens = [operator.index(i) for i in ids]  # NumPy's integers become Python's
        except TypeError as error:
            raise UsageError(f"A token id is no integer ({error}).", "Give integers.") from None
        for token in tokens:
            if not 0 <= token < vocab:
                raise UsageError(
                    f"{token} is no token of this model.", f"Ids are 0 to {vocab - 1}."
                )
        self.place.pending.extend(tokens)

    def ready(self, whole: bool = False) -> int:
        """Tokens of the next piece; 0 if there is nothing to feed.

        Pieces end at absolute multiples of the piece length and of the chunk, so that the same
        text is computed in the same pieces wherever the reading was interrupted.

        Args:
            whole: leave tokens alone that do not reach such a boundary.
        """
        waiting, position = len(self.place.pending), self.place.position
        room = min(
            self.piece - position % self.piece,
            self.manifest.chunk - position % self.manifest.chunk,
        )
        return room if waiting >= room else 0 if whole else waiting

    def feed(self, *, whole: bool = False, last: bool = False) -> Iterator[Logits]:
        """Feed what waits, piece by piece, until nothing does or ``stop`` is set.

        Args:
            whole: leave an unfinished piece waiting.
            last: ask for the logits of the very last token.

        Yields:
            [rows, vocab_size] after each piece; no rows but for ``last``.
        """
        while (count := self.ready(whole)) and not self.stop.is_set():
            wanted = last and count == len(self.place.pending)
            yield self.step(count, (count - 1,) if wanted else ())

    def step(self, count: int, rows: Sequence[int] = ()) -> Logits:
        """Feed the first ``count`` waiting tokens.

        Args:
            count: what ``ready`` said.
            rows: which of them want logits.

        Returns:
            [rows, vocab_size]; valid until the next step.

        Raises:
            SessionStateError: the step failed, now or earlier.
        """
        self.check()
        place = self.place
        ids = np.array(place.pending[:count], dtype=np.int64)
        with self._lock, interrupts.deferred():
            try:
                logits = self.engine.run(
                    self._buffers, ids, place.position, np.array(rows, dtype=np.int64)
                )
            except SessionStateError as error:
                self.failure = error.message
                raise
            place.advance(count)
        if self.fed is not None:
            self.fed(count)
        return logits

    def check(self) -> None:
        """Raise SessionStateError if an earlier step failed."""
        if self.failure:
            raise SessionStateError(f"This session failed: {self.failure}", _RECOVER)

    def check_memory(self, everything: bool = False) -> None:
        """Look for values that are not finite; a state with one is not to be trusted.

        Args:
            everything: look at the keys and values of the window too.

        Raises:
            SessionStateError: one was found; the text names the tensor.
        """
        name = not_finite(self.manifest.state, self.tensors, None if everything else _MEMORY)
        if name is not None:
            self.failure = f"{name} holds a value that is not finite."
            self.check()

    def check_logits(self, logits: Logits) -> None:
        """Raise SessionStateError, and trust the state no more, if there is no best logit."""
        # The maximum of values with a NaN among them is NaN; minus infinity only forbids a token.
        if not np.isfinite(logits.max(initial=-np.inf)):
            self.failure = f"the logits at position {self.place.position} are not finite."
            self.check()

    def blank(self, seed: int) -> None:
        """Go back to the beginning."""
        zero(self.manifest.state, self.tensors)
        self.place = Place(seed=seed)
        self.failure = ""

    def restore(self, tensors: DeviceTensors, place: Place) -> None:
        """Go to another state of the same model; both arguments stay independent."""
        self.tensors.copy_from(tensors)
        self.place = place.copy()
        self.failure = ""
