"""Training data has the tokens that a session would feed and a model write, in every family."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
import tokenizers
from runtime.tokenizer_families import FAMILIES, family_json

from allmem_exporters.finetune.data.documents import Document
from allmem_exporters.finetune.data.packing import pack
from allmem_exporters.finetune.data.repeats import repeats
from allmem_exporters.finetune.data.sequence import Sequence
from allmem_exporters.finetune.data.tokens import Tokens
from allmem_runtime.text.chat import ChatTemplate
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
