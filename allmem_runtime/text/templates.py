"""Runs a chat template that came with a model: sandboxed, bounded in time and in size.

A template is a program from a stranger. It gets no attribute that leads out of the sandbox, no
operation that builds a text beyond a named size, and a limit on processor time that holds
inside loops without output too. It knows nothing of conversations.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from types import FrameType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from allmem_runtime.errors import ModelFileError
from allmem_runtime.text.chat import REMEDY, Refused, Render
from allmem_runtime.text.dates import written_now

MAX_TEMPLATE_CHARACTERS = 1 << 17
MAX_OUTPUT_CHARACTERS = 1 << 20
MAX_SECONDS = 2.0
_MAX_ITEMS = 1 << 17
_MAX_INDENT = 16

# They build texts of a size given as a number, or are not reproducible.
_REMOVED_FILTERS = ("batch", "center", "format", "indent", "random", "wordwrap", "urlize")
_REFUSED_TEXT_METHODS = {
    "center", "encode", "expandtabs", "format", "format_map", "ljust", "rjust", "translate",
    "zfill",
}  # fmt: skip


def chat_render(
    template: Template, control: Mapping[str, str], *, answer_begins: bool = True
) -> Render:
    """What a template makes of messages.

    Thinking aloud is switched off in templates that know the switch ``enable_thinking``.

    Args:
        template: to render.
        control: control tokens by the names templates use, such as ``bos_token``.
        answer_begins: go on up to where an answer begins.
    """

    def render(messages: list[dict[str, str]]) -> str:
        return template.render(
            {
                **control,
                "messages": messages,
                "add_generation_prompt": answer_begins,
                "enable_thinking": False,
                "tools": None,
                "documents": None,
            }
        )

    return render


class TemplateLimit(jinja2.TemplateError):
    """A template that ran too long or built too much."""


class Template:
    """A compiled chat template.

    Attributes:
        dates: what it was told of the time, by the form it asked for.

    Raises:
        ModelFileError: too long, or not a Jinja template.
    """

    def __init__(self, source: str) -> None:
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise _failure(f"has {len(source)} characters, more than {MAX_TEMPLATE_CHARACTERS}")
        self.dates: dict[str, str] = {}
        environment = _Environment()
        environment.globals["strftime_now"] = self._now
        try:
            with _time_limit():
                self._template = environment.from_string(source)
        except Exception as error:  # a program from a stranger raises what it likes
            raise _failure(f"is not valid: {_describe(error)}") from None

    def _now(self, form: str) -> str:
        self.dates[form] = written_now(form)
        return self.dates[form]

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text of the template with these variables.

        Raises:
            ModelFileError: the template failed, refused, or passed a limit; the text says why.
        """
        parts: list[str] = []
        size = 0
        try:
            with _time_limit():
                for part in self._template.generate(variables):
                    size += len(part)
                    _bounded(size)
                    parts.append(part)
        except (TemplateLimit, SecurityError, MemoryError) as error:
            raise _failure(f"failed: {_describe(error)}") from None
        except Exception as error:  # a program from a stranger raises what it likes
            raise Refused(
                f"The model's chat template failed: {_describe(error)}.", REMEDY
            ) from None
        return "".join(parts)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox with the helpers templates expect, every text-building operation bounded."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
            finalize=_countable,
        )
        for name in _REMOVED_FILTERS:
            del self.filters[name]
        self.filters.update(tojson=_tojson, string=_string, join=_join, replace=_replace)
        del self.globals["lipsum"]
        self.globals.update(raise_exception=_raise_exception)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        result: nodes.Template = _JoinByAddition().visit(tree)
        return result

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in _REFUSED_TEXT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """No wrapper for ``str.format``: with none, the method is refused like its fellows."""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
            _bounded(len(left) + len(right))
        elif operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if hasattr(sequence, "__len__") and isinstance(times, int):
                    _bounded(len(sequence) * max(times, 0))
            if isinstance(left, int) and isinstance(right, int):
                _bounded(left.bit_length() + right.bit_length())
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _bounded(left.bit_length() * abs(right))
        elif operator == "%" and isinstance(left, str):
            # A width inside the format would choose the size of the result.
            if any(character.isdigit() or character == "*" for character in left):
                raise SecurityError("a width in a text format is refused")
            _bounded(len(left) * (1 + len(str(_countable(right)))))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str) and name == "replace" and len(args) >= 2:
            return _replace(owner, *args)
        if isinstance(owner, str) and name == "join" and args:
            return _join(args[0], owner)
        return super().call(__context, __obj, *args, **kwargs)


class _JoinByAddition(NodeTransformer):
    """Turns ``a ~ b`` into additions, which are intercepted and so bounded."""

    def visit_Concat(self, node: nodes.Concat, *args: Any, **kwargs: Any) -> nodes.Node:  # noqa: N802
        parts: list[nodes.Expr] = [
            nodes.Filter(self.visit(part), "string", [], [], None, None, lineno=node.lineno)
            for part in node.nodes
        ]
        return reduce(lambda left, right: nodes.Add(left, right, lineno=node.lineno), parts)


class _Generation(Extension):
    """Accepts ``{% generation %}``, which marks the assistant's text for training."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _bounded(size: int) -> None:
    if size > MAX_OUTPUT_CHARACTERS:
        raise TemplateLimit(f"it builds a text or list of more than {MAX_OUTPUT_CHARACTERS}")


def _countable(value: Any) -> Any:
    """The value itself, once its leaves were counted: nested lists can share their parts."""
    budget, size, queue = _MAX_ITEMS, 0, [value]
    while queue:
        item = queue.pop()
        budget -= 1
        if budget < 0:
            raise TemplateLimit(f"it writes a list of more than {_MAX_ITEMS} items")
        if isinstance(item, str):
            size += len(item)
            _bounded(size)
        elif isinstance(item, Mapping):
            _bounded(len(item))
            queue += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            _bounded(len(item))
            queue += item
    return value


def _string(value: Any) -> str:
    return str(_countable(value))


def _join(value: Any, separator: str = "", attribute: str | int | None = None) -> str:
    parts = []
    size = 0
    for item in value:
        part = _string(item if attribute is None else item[attribute])
        size += len(part) + len(separator)
        _bounded(size)
        parts.append(part)
    return separator.join(parts)


def _replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = _string(value), _string(old), _string(new)
    _bounded(len(text) + text.count(old) * len(new))
    return text.replace(old, new, -1 if count is None else count)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it stands in a prompt: not escaped for HTML."""
    if indent is not None and not 0 <= indent <= _MAX_INDENT:
        raise TemplateLimit(f"it asks for an indent of {indent}")
    return json.dumps(
        _countable(value),
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: Any) -> None:
    raise jinja2.TemplateError(_string(message))


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raise inside Python code of this thread after ``MAX_SECONDS`` of its processor time."""
    deadline = time.thread_time() + MAX_SECONDS

    def watch(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        if time.thread_time() > deadline:
            raise TemplateLimit(f"it runs for more than {MAX_SECONDS:g} seconds")
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


def _describe(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "it takes too much memory"
    text = str(error).strip().split("\n")[0][:200].rstrip(".")
    return text if isinstance(error, jinja2.TemplateError) and text else f"{type(error).__name__}"


def _failure(what: str) -> ModelFileError:
    return ModelFileError(f"The model's chat template {what}.", REMEDY)
