"""Training data has the tokens that a session would feed and a model write, in every family."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
import tokenizers
from runtime.texts_without_end import TEMPLATES
from runtime.tokenizer_families import FAMILIES, family_json

from allmem_exporters.errors import ConversionError, DataError
from allmem_exporters.finetune.data.documents import Document
from allmem_exporters.finetune.data.packing import pack
from allmem_exporters.finetune.data.repeats import repeats
from allmem_exporters.finetune.data.sequence import Sequence
from allmem_exporters.finetune.data.tokens import Tokens
from allmem_runtime.text import conversation, limits, trial_process
from allmem_runtime.text.chat import ChatTemplate
from allmem_runtime.text.conversation import Conversation
from allmem_runtime.text.parts import Part
from allmem_runtime.text.templates import Template, chat_render
from allmem_runtime.text.tokenizer import Tokenizer
from allmem_runtime.text.turns import Turns

LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<s>[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' </s>' }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<s>' + m.role + '\n' + m.content + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
TEXTS = ("Who has the key?", "  Not I. ", "Über den Flüssen, 東京?\n", "def f(x):\n    return x")
STORY = "The key of the boathouse hangs in the hall, and nobody had been there since May. "

MakeTokens = Callable[[str, str], tuple[Tokens, Tokenizer]]


@pytest.fixture
def made(tmp_path: Path) -> MakeTokens:
    def make(family: str, template: str = ZEPHYR) -> tuple[Tokens, Tokenizer]:
        library = tokenizers.Tokenizer.from_str(family_json(family))
        library.add_special_tokens(
            [tokenizers.AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>")]
        )
        content = library.to_str()
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
        (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
        return Tokens(tmp_path), Tokenizer(content)

    return make


@pytest.mark.parametrize("template", [LLAMA_2, ZEPHYR], ids=["Llama 2", "Zephyr"])
@pytest.mark.parametrize("family", FAMILIES)
def test_conversation_has_the_tokens_of_a_session(
    made: MakeTokens, family: str, template: str
) -> None:
    tokens, tokenizer = made(family, template)
    chat = ChatTemplate.from_model(chat_render(Template(template), {}))
    turns = Turns(tokenizer, chat, [])
    roles = ("user", "assistant") * 2
    messages = [{"role": r, "content": t} for r, t in zip(roles, TEXTS, strict=True)]
    wanted: list[int] = []
    written: list[bool] = []
    for turn, ask, answer in (("start", 0, 1), ("reply", 2, 3)):
        for ids, answers in (
            (turns.question(turn, TEXTS[ask], None), False),  # type: ignore[arg-type]
            (turns.answer(TEXTS[answer]), True),
        ):
            wanted += ids
            written += [answers] * len(ids)

    ids, counts = tokens.conversation(messages)

    assert ids[: len(wanted)].tolist() == wanted
    end = np.isin(ids, [number for number, name in tokens.control.items() if name == "</s>"])
    own = counts[: len(wanted)] & ~end[: len(wanted)]
    assert own.tolist() == [w and not e for w, e in zip(written, end, strict=False)]
    if template == ZEPHYR:  # where nothing stands between an answer and its end
        assert counts[end].tolist() == [False, True, False, True]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_document_behind_an_opening_or_another_has_the_tokens_of_the_whole(
    made: MakeTokens, family: str
) -> None:
    tokens, tokenizer = made(family)
    long, short = (Document("a", (STORY * times,), "train") for times in (60, 1))

    def packed(document: Document, chat_share: float) -> list[Sequence]:
        found = pack([document] * 9, tokens, 100, Random(1), wanted=9, chat_share=chat_share)
        return list(found)

    opened = [Part("<s>user\n", control=True), Part(STORY * 60, control=False)]
    whole = tokenizer.encode_parts(opened)
    for document, least in ((long, 100), (short, len(tokens.opening(STORY.strip())))):
        begun = [s for s in packed(document, 1.0) if s.ids[:least].tolist() == whole[:least]]
        assert begun
        for sequence in begun:
            assert len(sequence.ids) == 100
            assert (~sequence.counts).sum() == len(tokens.opening())
    end = tokens.document_end
    behind = tokenizer.encode_text(short.text, "control")
    wanted = tokenizer.encode_text(short.text) + 9 * [*end, *behind]
    for sequence in packed(short, 0.0):
        assert sequence.ids.tolist() == wanted[:100]


@pytest.mark.parametrize("family", FAMILIES)
def test_repeated_passages_have_the_tokens_of_the_whole_text(
    made: MakeTokens, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, tokenizer = made(family)
    texts: list[str] = []
    real = Tokens.encode_with_offsets

    def seen(self: Tokens, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        texts.append(text)
        return real(self, text)

    monkeypatch.setattr(Tokens, "encode_with_offsets", seen)
    prose = (f"Paragraph {n} tells it. {STORY}" for n in range(10_000))
    sequence = repeats(tokens, prose, 1500, "train", "here", Random(3))
    assert sequence.ids.tolist() == tokenizer.encode_text(texts[-1])
    assert len(sequence.ids) <= 1500 and 40 < sequence.counts.sum() < 600


def alternating(turns: int) -> list[dict[str, str]]:
    roles = ("user", "assistant") * turns
    return [{"role": role, "content": f"Turn {n}."} for n, role in enumerate(roles[:turns])]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("{{ 'x' * 30000000 }}", "builds a text or list of more than"),
        (TEMPLATES["a comparison without end"], "takes more than 1 seconds"),
        ("{{ raise_exception('only four turns') }}", "only four turns"),
    ],
)
def test_template_that_takes_too_much_of_a_longer_conversation_is_one_error(
    made: MakeTokens, monkeypatch: pytest.MonkeyPatch, more: str, words: str
) -> None:
    """The trial, which shows it three turns, let it pass."""
    monkeypatch.setattr(limits, "BASE_SECONDS", 1)
    monkeypatch.setattr(limits, "TEMPLATE_SECONDS", 1)
    tokens, _ = made("byte level", f"{{% if messages | length > 4 %}}{more}{{% endif %}}{ZEPHYR}")
    tokens.conversation(alternating(4))
    with pytest.raises(DataError) as caught:
        tokens.conversation(alternating(5))
    assert words in caught.value.message and "\n" not in str(caught.value)
    assert caught.value.hint


def test_conversations_of_one_shape_are_rendered_once_in_another_process(
    made: MakeTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, _ = made("byte level")
    asked: list[list[str]] = []
    real = trial_process.run

    def run(task: Conversation) -> dict[str, object]:
        asked.append(list(task.roles))
        return real(task)

    monkeypatch.setattr(conversation, "run", run)
    for _ in range(3):
        tokens.conversation(alternating(2))
        tokens.opening("A document.")
    assert asked == [["user", "assistant"], ["user"]]


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "tokenizer_config.json"])
def test_nothing_outside_the_checkpoint_is_read(
    made: MakeTokens, tmp_path: Path, name: str
) -> None:
    made("byte level")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    (tmp_path / name).rename(outside)
    (tmp_path / name).symlink_to(outside)
    with pytest.raises(ConversionError, match=f"{name} is a link to .*, outside the folder"):
        Tokens(tmp_path)


@pytest.mark.parametrize("value", ["x", [1], -1, 1 << 40, True, 1.5])
def test_vocabulary_of_another_kind_is_refused_by_name(
    made: MakeTokens, tmp_path: Path, value: object
) -> None:
    made("byte level")
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": value}))
    with pytest.raises(DataError, match="config.json has the vocab_size"):
        Tokens(tmp_path)


@pytest.mark.parametrize("value", [None, 3, [], {}, {"content": 5}, "<none>"])
def test_settings_of_another_kind_name_no_token(
    made: MakeTokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    made("byte level", LLAMA_2)
    settings = {"eos_token": value, "bos_token": value}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    monkeypatch.setattr("allmem_exporters.finetune.data.tokens._DOCUMENT_END", "<none>")
    tokens = Tokens(tmp_path)
    assert tokens.document_end == [] and len(tokens.conversation(alternating(2))[0])
