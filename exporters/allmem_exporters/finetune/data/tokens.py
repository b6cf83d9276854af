"""The model's tokenizer and chat template, as the runtime uses them: text is never control.

The template is rendered with stand-ins for what people write, cut at them, and each part encoded
on its own. So no document can contain a control token, and it is known which tokens are answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Sequence as Listing
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import tokenizers
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray

from allmem_exporters.errors import DataError
from allmem_exporters.finetune.data.shard_format import tokenizer_digest
from allmem_runtime.strict_json import read_object

Message = Mapping[str, str]

# Some tokenizers list control tokens as ordinary added ones; their form gives them away.
_CONTROL_FORM = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)
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
        path = checkpoint / "tokenizer.json"
        try:
            content = path.read_text(encoding="utf-8")
            self._template_encoder = tokenizers.Tokenizer.from_str(content)
            self._text_encoder = tokenizers.Tokenizer.from_str(content)
        except Exception as error:  # the library raises nothing more special
            raise DataError(f"{path} is not a tokenizer: {error}.") from error
        for encoder in (self._template_encoder, self._text_encoder):
            encoder.no_truncation()
            encoder.no_padding()
        added = self._template_encoder.get_added_tokens_decoder()
        self.control = {
            number: token.content
            for number, token in added.items()
            if token.special or _CONTROL_FORM.fullmatch(token.content)
        }
        self._text_encoder.add_special_tokens(
            [
                tokenizers.AddedToken(t, special=True, normalized=False)
                for t in self.control.values()
            ]
        )
        self._text_encoder.encode_special_tokens = True
        self._settings = _read_json(checkpoint / "tokenizer_config.json", optional=True)
        config = _read_json(checkpoint / "config.json", optional=True)
        self.vocab_size: int = config.get("vocab_size") or self._template_encoder.get_vocab_size()
        self._template = self._read_template(checkpoint)
        self._counted: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        """Tokens of a text that a person wrote: none of them is a control token."""
        ids: list[int] = self._text_encoder.encode(text, add_special_tokens=False).ids
        return ids

    def count(self, text: str) -> int:
        """Number of tokens of a text, remembered."""
        if text not in self._counted:
            if len(self._counted) >= _COUNT_CACHE:
                self._counted.clear()
            self._counted[text] = len(self.encode(text))
        return self._counted[text]

    def decode(self, ids: Listing[int]) -> str:
        """The text of tokens, control tokens included."""
        text: str = self._template_encoder.decode(list(ids), skip_special_tokens=False)
        return text

    @property
    def document_end(self) -> list[int]:
        """The token between two documents, if the model has one; else none."""
        names = {name: number for number, name in self.control.items()}
        for name in (_DOCUMENT_END, self._settings.get("eos_token")):
            if isinstance(name, str) and name in names:
                return [names[name]]
        return []

    def opening(self) -> list[int]:
        """What the chat template writes before a document in the first user message."""
        piece, *_ = self._render([{"role": "user", "content": ""}])
        return self._control_ids(piece)

    def conversation(
        self, messages: Listing[Message]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Tokens of a conversation, and which of them are answers.

        The control token that ends an answer belongs to it.

        Args:
            messages: each with ``role`` (system, user or assistant) and ``content``.

        Returns:
            ids int64 [length] and counts bool [length].

        Raises:
            DataError: the template refuses the messages or does not repeat them in order.
        """
        first, *rest = self._render(messages)
        ids = self._control_ids(first)
        counts = [False] * len(ids)
        for message, after in zip(messages, rest, strict=True):
            answer = message["role"] == "assistant"
            content = self.encode(message["content"])
            ids += content
            counts += [answer] * len(content)
            control = self._control_ids(after)
            ends = answer and bool(control) and control[0] in self.control
            ids += control
            counts += [ends and place == 0 for place in range(len(control))]
        return np.array(ids, np.int64), np.array(counts, bool)

    def _control_ids(self, text: str) -> list[int]:
        ids: list[int] = self._template_encoder.encode(text, add_special_tokens=False).ids
        return ids

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

    def _read_template(self, checkpoint: Path) -> jinja2.Template:
        path = checkpoint / "chat_template.jinja"
        source = self._settings.get("chat_template")
        if path.is_file():
            source = path.read_text(encoding="utf-8")
        if not isinstance(source, str):
            raise DataError(
                f"{checkpoint} has no chat template.",
                "Training data asks questions in the model's own template: use a chat model, or "
                "put chat_template.jinja into the folder.",
            )
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
