"""A chat template as it is found out in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping

from allmem_runtime.text.chat import ChatTemplate
from allmem_runtime.text.templates import Template, chat_render


def chat_of(source: str | None, control: Mapping[str, str] | None = None) -> ChatTemplate:
    """What a template does, found out in this process."""
    if source is None:
        return ChatTemplate.from_model(None)
    return ChatTemplate.from_model(chat_render(Template(source), control or {}))
