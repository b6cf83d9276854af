"""The model's tokenizer and chat template, as the runtime uses them: text is never control.

The template is rendered with stand-ins for what people write and cut at them, so no document can
contain a control token. What a session feeds as one text is encoded as one, and an answer on its
own, as a model writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Listing
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray

from allmem_exporters.errors import DataError
from allmem_exporters.finetune.data.shard_format import tokenizer_digest
from allmem_runtime.errors import ModelFileError
from allmem_runtime.spec import CHAT_TEMPLATE_FILE, TOKENIZER_FILE
from allmem_runtime.strict_json import read_object
from allmem_runtime.text.parts import After, Part
from allmem_runtime.text.tokenizer import Tokenizer, read_tokenizer
from allmem_runtime.text.trial import Candidate, tried

Message = Mapping[str, str]

_DOCUMENT_END = "<|endoftext|>"
_COUNT_CACHE = 1 << 18


class Tokens:
    """Encodes texts and conversations for one checkpoint.

    Args:
        checkpoint: folder with ``tokenizer.json``, ``config.json`` and the chat template, in
            ``chat_template.jinja`` or ``tokenizer_config.json``.

    Raises:
        DataError: a file is missing or not valid; names it.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.digest = tokenizer_digest(checkpoint)
        self._settings = _read_json(checkpoint / "tokenizer_config.json", optional=True)
        config = _read_json(checkpoint / "config.json", optional=True)
        source = self._template_of(checkpoint)
        path = checkpoint / TOKENIZER_FILE
        try:
            content = read_tokenizer(path)
            tried(Candidate(content, source, None, (), checkpoint))
            self._tokenizer = Tokenizer.from_content(content, path)
        except ModelFileError as error:
            raise DataError(error.message, error.hint) from None
        self.control = self._tokenizer.control
        self.vocab_size: int = config.get("vocab_size") or self._tokenizer.vocab_size
        self._template = _compiled(source, checkpoint)
        self._counted: dict[str, int] = {}

    def encode(self, text: str, after: After = "start") -> list[int]:
        """Tokens of a text that a person wrote: none of them is a control token.

        Args:
            text: the text.
            after: what stands before it.
        """
        return self._tokenizer.encode_text(text, after)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The same, and where in the text each token begins and ends."""
        return self._tokenizer.encode_with_offsets(text)

    def count(self, text: str) -> int:
        """Number of tokens of a text, remembered."""
        if text not in self._counted:
            if len(self._counted) >= _COUNT_CACHE:
                self._counted.clear()
            self._counted[text] = len(self.encode(text, "text"))
        return self._counted[text]

    def decode(self, ids: Listing[int]) -> str:
        """The text of tokens, control tokens included."""
        return self._tokenizer.decode(ids, control=True)

    @property
    def document_end(self) -> list[int]:
        """The token between two documents, if the model has one; else none."""
        names = {name: number for number, name in self.control.items()}
        for name in (_DOCUMENT_END, self._settings.get("eos_token")):
            if isinstance(name, str) and name in names:
                return [names[name]]
        return []

    def opening(self, document: str = "") -> list[int]:
        """What the chat template writes before a document in the first user message.

        Args:
            document: its beginning, to be encoded together with that.
        """
        piece, *_ = self._render([{"role": "user", "content": ""}])
        return self._tokenizer.encode_parts([Part(piece, True), Part(document, False)])

    def conversation(
        self, messages: Listing[Message]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Tokens of a conversation as a session feeds and writes them, and which are answers.

        All from an answer up to the next is encoded as one text. The control token that ends an
        answer belongs to it, and so do spaces that the template sets it off by: the model writes
        both.

        Args:
            messages: each with ``role`` (system, user or assistant) and ``content``.

        Returns:
            ids int64 [length] and counts bool [length].

        Raises:
            DataError: the template refuses the messages or does not repeat them in order.
        """
        *pieces, last = self._render(messages)
        ids: list[int] = []
        counts: list[bool] = []
        parts: list[Part] = []
        after: After = "start"

        def prompt() -> After:
            """Add what was gathered; what stands before the next text."""
            found, text, behind = self._tokenizer.open_parts(parts, after)
            found += self._tokenizer.encode_text(text, behind)
            ends = after == "text" and bool(found) and found[0] in self.control
            ids.extend(found)
            counts.extend(ends and place == 0 for place in range(len(found)))
            parts.clear()
            return "text" if text else behind

        for piece, message in zip(pieces, messages, strict=True):
            content = Part(message["content"], control=False)
            if message["role"] != "assistant":
                parts += [Part(piece, control=True), content]
                continue
            asked = piece.rstrip(" ")
            parts.append(Part(asked, control=True))
            set_off = Part(piece[len(asked) :], control=False)
            answer = self._tokenizer.encode_parts([set_off, content], prompt())
            ids += answer
            counts += [True] * len(answer)
            after = "text"
        parts.append(Part(last, control=True))
        prompt()
        return np.array(ids, np.int64), np.array(counts, bool)

    def _render(self, messages: Listing[Message]) -> list[str]:
        """The template's own texts before, between and after the messages' contents."""
        contents = [f"AllmemStandIn{number}Content" for number in range(len(messages))]
        try:
            text = self._template.render(
                messages=[
                    {"role": message["role"], "content": content}
                    for message, content in zip(messages, contents, strict=True)
                ],
                add_generation_prompt=False,
                enable_thinking=False,
                tools=None,
                documents=None,
                bos_token=self._special("bos_token"),
                eos_token=self._special("eos_token"),
            )
        except jinja2.TemplateError as error:
            roles = ", ".join(message["role"] for message in messages[:4])
            raise DataError(
                f"The model's chat template refuses a conversation that begins {roles}: {error}."
            ) from error
        pieces = []
        for content in contents:
            piece, found, text = text.partition(content)
            if not found or content in text:
                raise DataError(
                    "The model's chat template does not repeat each message exactly once, in order."
                )
            pieces.append(piece)
        return [*pieces, text]

    def _special(self, name: str) -> str:
        value = self._settings.get(name) or ""
        return value["content"] if isinstance(value, dict) else value

    def _template_of(self, checkpoint: Path) -> str:
        path = checkpoint / CHAT_TEMPLATE_FILE
        source = self._settings.get("chat_template")
        if path.is_file():
            try:
                source = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{path} cannot be read: {error}.") from error
        if not isinstance(source, str):
            raise DataError(
                f"{checkpoint} has no chat template.",
                "Training data asks questions in the model's own template: use a chat model, or "
                "put chat_template.jinja into the folder.",
            )
        return source


def _compiled(source: str, checkpoint: Path) -> jinja2.Template:
    """A template that was tried."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise DataError(f"{checkpoint}: the chat template is not valid: {error}.") from error


def _read_json(path: Path, *, optional: bool) -> dict[str, Any]:
    if optional and not path.is_file():
        return {}
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
