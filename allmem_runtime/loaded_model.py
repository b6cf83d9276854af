"""What all sessions of a model share: its files, the engine, the tokenizer and the template.

It knows no session; those are made by ``allmem_runtime.model``.
"""

from __future__ import annotations

from typing import Any

from allmem_runtime.config import Manifest
from allmem_runtime.engine.devices import Device
from allmem_runtime.engine.engine import Engine
from allmem_runtime.engine.piece_limits import piece_length
from allmem_runtime.errors import ModelFileError, UsageError
from allmem_runtime.files.package import Package
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.spec import GENERATION_FILE
from allmem_runtime.text.tokenizer import Tokenizer, read_tokenizer
from allmem_runtime.text.trial import Candidate, tried

_DRAWING = ("temperature", "top_k", "top_p", "min_p")


class Texts:
    """What of a model is about text: tokenizer, chat template, and how answers are drawn.

    Args:
        package: the model.

    Raises:
        ModelFileError: one of them is missing or damaged.
    """

    def __init__(self, package: Package) -> None:
        manifest = package.manifest
        content = read_tokenizer(package.tokenizer)
        self.chat = tried(
            Candidate(
                content,
                package.chat_template,
                manifest.begin_tokens,
                manifest.end_tokens,
                package.folder,
            )
        )
        self.tokenizer = Tokenizer.from_content(content, package.tokenizer)
        vocab = manifest.backbone.vocab_size
        if self.tokenizer.vocab_size > vocab:
            raise ModelFileError(
                f"{package.tokenizer} knows {self.tokenizer.vocab_size} tokens, the model {vocab}.",
                "Tokenizer and graph come from different models: export the model again.",
            )
        self.sampling = default_sampling(package.generation, str(package.folder / GENERATION_FILE))


class LoadedModel:
    """What sessions ask of their model; nothing in it changes.

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
        texts: Texts | None = None,
    ) -> None:
        self.package = package
        self.engine = engine
        self.piece = piece_length(package.manifest)
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
    def device(self) -> Device:
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
