"""The model's tokenizer and chat template, as the runtime uses them: text is never control.

The template is rendered, in a process of its own, with stand-ins for what people write and cut at
them, so no document can contain a control token. What a session feeds as one text is encoded as
one, and an answer on its own, as a model writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Listing
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from allmem_exporters.errors import DataError
from allmem_exporters.finetune.data.shard_format import tokenizer_digest
from allmem_exporters.local_files import json_in, text_in
from allmem_runtime.config import BOUNDS
from allmem_runtime.errors import ModelFileError
from allmem_runtime.spec import CHAT_TEMPLATE_FILE, TOKENIZER_FILE
from allmem_runtime.strict_json import is_whole
from allmem_runtime.text.conversation import Conversation, written_around
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
        ConversionError: one cannot be read, or is a link out of the folder.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.digest = tokenizer_digest(checkpoint)
        self._settings = json_in(checkpoint, "tokenizer_config.json") or {}
        config = json_in(checkpoint, "config.json") or {}
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
        if not is_whole(self.vocab_size, *BOUNDS["vocab_size"]):
            raise DataError(
                f"{checkpoint}: config.json has the vocab_size {str(self.vocab_size)[:40]}.",
                "Name a checkpoint folder made by `allmem convert`.",
            )
        control = {name: self._special(name) for name in ("bos_token", "eos_token")}
        self._shape = partial(Conversation, source, control, origin=checkpoint)
        self._written: dict[tuple[str, ...], list[str]] = {}
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
        for name in (_DOCUMENT_END, self._special("eos_token")):
            if name in names:
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
        roles = tuple(message["role"] for message in messages)
        if roles not in self._written:
            try:
                self._written[roles] = written_around(self._shape(roles))
            except ModelFileError as error:
                raise DataError(
                    f"Of a conversation that begins {', '.join(roles[:4])}: {error.message}",
                    error.hint,
                ) from None
        return self._written[roles]

    def _special(self, name: str) -> str:
        value = self._settings.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        return value if isinstance(value, str) else ""

    def _template_of(self, checkpoint: Path) -> str:
        source = text_in(checkpoint, CHAT_TEMPLATE_FILE)
        if source is None:
            source = self._settings.get("chat_template")
        if not isinstance(source, str):
            raise DataError(
                f"{checkpoint} has no chat template.",
                "Training data asks questions in the model's own template: use a chat model, or "
                "put chat_template.jinja into the folder.",
            )
        return source
