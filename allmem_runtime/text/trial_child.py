"""The process in which a tokenizer and a chat template are tried: a task in, what was found out.

A task may also be to render one conversation with a template.
"""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from allmem_runtime.errors import ModelFileError
from allmem_runtime.spec import CHAT_TEMPLATE_FILE, TOKENIZER_FILE
from allmem_runtime.text.limits import Limits, allow

MOST_TOKENS = 64
"""A character makes at most so many tokens, and a character of a token's name so many."""
_REPEATS = 64
_LONG = 2048
_CHUNK = 512
_REMEDY = "Open only models that you trust, or export this one again from its source."
_SENTENCES = (
    "The key hangs in the hall; who's there? \u00dcber 3,141.59 \u20ac.\r\n\n\t"
    "\u6771\u4eac \u0939\u093f\u0928\u094d\u0926\u0940 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 "
    "\U0001f469\u200d\U0001f680 e\u0301 \ufb01 \u0000 \ufffd <|x|> </s> __init__({}) // end"
)


def main() -> None:
    """Do the task on standard input under limits, and say what was found on standard output."""
    task = json.loads(sys.stdin.buffer.read())
    limits = Limits(**task["limits"])
    limits.apply()
    do(task, _say, lambda: allow(limits.template_seconds))


def do(
    task: dict[str, Any],
    say: Callable[[dict[str, Any]], None],
    between: Callable[[], None] = lambda: None,
) -> None:
    """Do a task of either kind; see ``try_all`` and ``write``."""
    if "roles" in task:
        write(task, say)
    else:
        try_all(task, say, between)


def write(task: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """Render one conversation.

    Args:
        task: ``template``, ``control`` and ``roles`` of a conversation.
        say: as for ``try_all``.
    """
    say({"trying": CHAT_TEMPLATE_FILE})
    with _telling(CHAT_TEMPLATE_FILE, say):
        say({"pieces": _pieces(task["template"], task["control"], task["roles"])})


def try_all(
    task: dict[str, Any],
    say: Callable[[dict[str, Any]], None],
    between: Callable[[], None] = lambda: None,
) -> None:
    """Try the tokenizer, then the template.

    Args:
        task: ``tokenizer``, ``template``, ``begin`` and ``end`` of a candidate.
        say: told what is tried next, and at last what was found or what failed.
        between: called after the tokenizer.
    """
    say({"trying": TOKENIZER_FILE})
    with _telling(TOKENIZER_FILE, say):
        control = _tokenizer(task)
        say({"trying": CHAT_TEMPLATE_FILE})
        between()
        with _telling(CHAT_TEMPLATE_FILE, say):
            say(_template(task["template"], control))


@contextmanager
def _telling(name: str, say: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Say what goes wrong with a file."""
    try:
        yield
    except ModelFileError as error:
        say({"trying": name, "error": [error.message, error.hint]})
    except MemoryError:
        say({"trying": name, "error": ["\0 cannot be used: it takes too much memory.", _REMEDY]})


def _tokenizer(task: dict[str, Any]) -> dict[str, str]:
    """Try the tokenizer; the control tokens that templates ask for by name."""
    import tokenizers

    from allmem_runtime.text.pipeline import beginning
    from allmem_runtime.text.tokenizer import Tokenizer

    try:
        tokenizer = Tokenizer(task["tokenizer"])
        begin = task["begin"]
        if begin is None:
            library = tokenizers.Tokenizer.from_str(task["tokenizer"])
            begin = beginning(library)
        _encode_samples(tokenizer, tokenizer.literals())
        _decode_all(tokenizer)
    except (ModelFileError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    # The library raises plain Exception, and a panic of its native code is a BaseException.
    except BaseException as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ModelFileError(f"\0: not a tokenizer ({reason}).", _REMEDY) from None
    return named_tokens(tokenizer.control, begin, task["end"])


def named_tokens(
    control: dict[int, str], begin: Sequence[int], end: Sequence[int]
) -> dict[str, str]:
    """The control tokens templates ask for by name."""
    names = {"bos_token": begin, "eos_token": end}
    return {name: control[ids[0]] for name, ids in names.items() if ids and ids[0] in control}


def _samples(literals: Sequence[str]) -> Iterator[str]:
    """Texts that let an expression or a replacement run wild, short ones first."""
    yield from (_SENTENCES, "a", "")
    for piece in (*string.printable, *literals):
        yield piece * max(1, _REPEATS // max(1, len(piece))) + "\u00e9!"
    for character in "a 1.\n":
        yield character * (_LONG - 1) + "!"


def _encode_samples(tokenizer: Any, literals: Sequence[str]) -> None:
    for text in _samples(literals):
        tokens = tokenizer.encode_text(text)
        if len(tokens) > MOST_TOKENS * (len(text) + 1):
            raise ModelFileError(
                f"\0 cannot be used: it makes {len(tokens)} tokens of {len(text)} characters.",
                _REMEDY,
            )
        tokenizer.decode(tokens)
        tokenizer.encode_text(text, "text")


def _decode_all(tokenizer: Any) -> None:
    for first in range(0, tokenizer.vocab_size, _CHUNK):
        ids = range(first, min(first + _CHUNK, tokenizer.vocab_size))
        written = sum(map(len, tokenizer.names(ids)))
        text = tokenizer.decode(ids)
        if len(text) > MOST_TOKENS * (written + len(ids)):
            raise ModelFileError(
                f"\0 cannot be used: it makes {len(text)} characters of {len(ids)} tokens.",
                _REMEDY,
            )


def _template(source: str | None, control: dict[str, str]) -> dict[str, Any]:
    from allmem_runtime.text.chat import ChatTemplate

    if source is None:
        return {"chat": ChatTemplate.from_model(None).as_data(), "dates": {}}
    from allmem_runtime.text.templates import Template, chat_render

    template = Template(source)
    chat = ChatTemplate.from_model(chat_render(template, control))
    return {"chat": chat.as_data(), "dates": template.dates}


def _pieces(source: str, control: Mapping[str, str], roles: Sequence[str]) -> list[str]:
    from allmem_runtime.text.chat import pieces_around
    from allmem_runtime.text.templates import Template, chat_render

    contents = [f"AllmemStandIn{number}Content" for number in range(len(roles))]
    messages = [
        {"role": role, "content": content} for role, content in zip(roles, contents, strict=True)
    ]
    render = chat_render(Template(source), control, answer_begins=False)
    return pieces_around(contents, render(messages))


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
