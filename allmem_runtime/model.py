"""A model: graph, tokenizer and template, immutable, shared by all its sessions."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from allmem_runtime.config import Manifest
from allmem_runtime.engine import devices
from allmem_runtime.engine.cuda_driver import find_cuda_device
from allmem_runtime.engine.engine import Engine
from allmem_runtime.engine.malloc import give_heap_back
from allmem_runtime.engine.options import EngineOptions
from allmem_runtime.engine.piece_limits import piece_length
from allmem_runtime.engine.probe import probe_cuda
from allmem_runtime.errors import ModelFileError, UsageError
from allmem_runtime.files.package import Package, open_package
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.options import from_keywords
from allmem_runtime.session.session import Session
from allmem_runtime.spec import GENERATION_FILE
from allmem_runtime.text.chat import ChatTemplate
from allmem_runtime.text.tokenizer import Tokenizer
from allmem_runtime.tuning import tuned_piece

log = logging.getLogger(__name__)

_DRAWING = ("temperature", "top_k", "top_p", "min_p")


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
    # A GPU takes its memory for the longest piece in advance, and likes all lengths.
    piece = None
    if chosen.name == "cpu":
        piece = tuned_piece(package, options.threads, engine.operators)
    model = Model(package, engine, piece, texts[0].result())
    give_heap_back()
    return model


class Texts:
    """What of a model is about text: tokenizer, chat template, and how answers are drawn.

    Args:
        package: the model.

    Raises:
        ModelFileError: one of them is missing or damaged.
    """

    def __init__(self, package: Package) -> None:
        self.tokenizer = Tokenizer.from_file(package.tokenizer)
        vocab = package.manifest.backbone.vocab_size
        if self.tokenizer.vocab_size > vocab:
            raise ModelFileError(
                f"{package.tokenizer} knows {self.tokenizer.vocab_size} tokens, the model {vocab}.",
                "Tokenizer and graph come from different models: export the model again.",
            )
        control = _control_tokens(package.manifest, self.tokenizer)
        self.chat = ChatTemplate.from_model(package.chat_template, control)
        self.sampling = default_sampling(package.generation, str(package.folder / GENERATION_FILE))


class Model:
    """A loaded model. Threads may share it; each session belongs to one thread at a time.

    Attributes:
        package: the files it came from.
        engine: runs its steps.
        tokenizer: its own tokenizer.
        chat: its own chat template.
        sampling: how answers are drawn unless told otherwise: what generation_config.json says
            where ``do_sample`` is true, else the most probable token every time.
        piece: most tokens a session feeds at once, unless told otherwise.
    """

    def __init__(
        self,
        package: Package,
        engine: Engine,
        piece: int | None = None,
        texts: Texts | None = None,
    ) -> None:
        self.package = package
        self.engine = engine
        self.piece = piece or piece_length(package.manifest)
        texts = texts or Texts(package)
        self.tokenizer = texts.tokenizer
        self.chat = texts.chat
        self.sampling = texts.sampling

    @property
    def manifest(self) -> Manifest:
        """What the model says of itself."""
        return self.package.manifest

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def device(self) -> devices.Device:
        """Where it runs, and why there."""
        return self.engine.device

    @property
    def operators(self) -> str:
        """``native`` or ``portable``."""
        return self.engine.operators

    @property
    def state_bytes(self) -> int:
        """Size of a session's state; it never changes."""
        return self.manifest.state.nbytes

    @property
    def longest_piece(self) -> int:
        """Most tokens that can be fed at once."""
        # A GPU took its memory for the usual length before there was any state.
        return self.manifest.chunk if self.device.name == "cpu" else piece_length(self.manifest)

    def session(self, *, undo: bool = True) -> Session:
        """A blank session.

        Args:
            undo: keep a copy of the state from before each question, so that ``undo`` and, after
                a failure, ``rollback`` work; it takes the memory of one more state.
        """
        return Session(self, undo=undo)

    def open(self, path: str | Path, *, undo: bool = True) -> Session:
        """A session as it was saved.

        Raises:
            SessionFileError: the file is missing, damaged or of another model.
        """
        return Session.opened(self, Path(path), undo=undo)


def _control_tokens(manifest: Manifest, tokenizer: Tokenizer) -> dict[str, str]:
    """The control tokens templates ask for by name."""
    names = {"bos_token": manifest.begin_tokens, "eos_token": manifest.end_tokens}
    return {
        name: tokenizer.control[ids[0]]
        for name, ids in names.items()
        if ids and ids[0] in tokenizer.control
    }


def default_sampling(generation: dict[str, Any], origin: str) -> Sampling:
    """How a model wants its answers drawn.

    Args:
        generation: contents of generation_config.json; keys of no concern are skipped.
        origin: file name for error messages.

    Raises:
        ModelFileError: a value is outside its range.
    """
    names = ["repetition_penalty"]
    if generation.get("do_sample") is True:
        names += _DRAWING
    values = {name: generation[name] for name in names if generation.get(name) is not None}
    if generation.get("do_sample") is True:
        values.setdefault("temperature", 1.0)
    try:
        return Sampling(**values)
    except UsageError as error:
        raise ModelFileError(f"{origin}: {error.message}", error.hint) from None
