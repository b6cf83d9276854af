"""Open a model, and sessions with it."""

from __future__ import annotations

import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from allmem_runtime.arguments import as_path, check_kind
from allmem_runtime.engine import devices
from allmem_runtime.engine.cuda_driver import find_cuda_device
from allmem_runtime.engine.engine import Engine
from allmem_runtime.engine.malloc import give_heap_back
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.engine.probe import probe_cuda
from allmem_runtime.errors import PassagesError, UsageError
from allmem_runtime.files.embedding_table import EmbeddingTable
from allmem_runtime.files.package import open_package
from allmem_runtime.loaded_model import LoadedModel, Texts
from allmem_runtime.options import from_keywords
from allmem_runtime.passages.keeping import Text
from allmem_runtime.passages.likeness import LEAST_VOCABULARY, Likeness
from allmem_runtime.session.session import Session

log = logging.getLogger(__name__)


def load(
    path: str | Path,
    options: EngineOptions | None = None,
    **given: Any,
) -> Model:
    """Open a model.

    Args:
        path: a model folder, or the model.onnx in one.
        options: where and how it runs.
        given: fields of ``EngineOptions`` by name, such as ``device="cpu"`` or ``threads=2``;
            they count more than ``options``.

    Raises:
        UsageError: an option has no such value, or does not go with the device.
        ModelFileError: the folder is not a model of ours, or damaged.
        DeviceError: the device cannot be used.
        OperatorLibraryError: the operators asked for cannot be used.
    """
    check_kind("path", path, (str, os.PathLike), "Give the path of a model folder.")
    options = from_keywords(EngineOptions, given, UsageError, options)
    package = open_package(path)
    with ThreadPoolExecutor(1, "allmem-text") as aside:
        texts: list[Future[Texts]] = []

        def read_texts() -> None:
            if not texts:
                texts.append(aside.submit(Texts, package))

        # Reading the tokenizer holds Python's lock, which opening the graph hardly needs.
        manifest = package.manifest
        chosen = devices.choose(
            options.device, probe_cuda, find_cuda_device, manifest.cache, manifest.operators
        )
        log.info("Device %s. %s", chosen, chosen.why)
        engine = Engine(package, chosen, options, meanwhile=read_texts)
        read_texts()
    model = Model(package, engine, texts[0].result())
    give_heap_back()
    return model


class Model(LoadedModel):
    """A loaded model, which makes sessions; ``LoadedModel`` lists its attributes.

    Threads may share it; each session belongs to one thread at a time.
    """

    @cached_property
    def _likeness(self) -> Likeness | None:
        """Compares questions with passages by the model's embedding, if NumPy can read that."""
        try:
            table = EmbeddingTable.of(self.package)
        except OSError as error:
            log.info("Passages are compared by their words alone: %s.", error)
            return None
        if table is None or table.vocabulary < LEAST_VOCABULARY:
            return None
        return Likeness(self.tokenizer.encode_text, table.rows, table.vocabulary)

    def session(self, *, undo: bool = True, text: str | Path | bool = False) -> Session:
        """A blank session.

        Args:
            text: keep the text of what is read, so that ``answer`` finds passages in it: the path
                the session will be saved to, beside which the text is written as it is read, or
                True for a temporary file until then.
            undo: keep a copy of the state from before each question, so that ``undo`` and, after
                a failure, ``rollback`` work; it takes the memory of one more state.

        Raises:
            UsageError: text is no path.
        """
        session = Session(self, undo=undo)
        if text is not False:
            home = None if text is True else as_path("text", text)
            like = self._likeness
            session.keep_text(Text.beside(home, "", like) if home else Text(None, like))
        return session

    def open(self, path: str | Path, *, undo: bool = True, text: bool = True) -> Session:
        """A session as it was saved, with the text that was kept of what it has read.

        A text that is missing, changed, locked or another session's is left alone: the session's
        ``text_failure`` says so, and its state answers alone.

        Args:
            path: the session file.
            undo: as for ``session``.
            text: use the text beside it, and keep that of what is read further; a session that
                was read without goes on without.

        Raises:
            UsageError: path is no path.
            SessionFileError: the file is missing, damaged or of another model.
        """
        path = as_path("path", path)
        session = Session.opened(self, path, undo=undo)
        if text and session.text_digest:
            try:
                kept = Text.beside(path, session.text_digest, self._likeness)
                session.keep_text(kept)
            except PassagesError as error:
                session.lose_text(error)
        return session
