"""Cut texts and prompts have the tokens of the whole, as transformers makes them."""

from __future__ import annotations

from functools import cache
from unittest.mock import patch

import pytest
from chat_templates import chat_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_families import FAMILIES, family_json
from tokenizers import AddedToken
from tokenizers import Tokenizer as Library
from transformers import PreTrainedTokenizerFast

from allmem_runtime.source_mark import SourceMark
from allmem_runtime.text import segments
from allmem_runtime.text.parts import Part
from allmem_runtime.text.reading import Reading
from allmem_runtime.text.tokenizer import Tokenizer
from allmem_runtime.text.turns import Turns

WORDS = st.sampled_from(
    ["the", "key", "boathouse", "Über", "東京", "🙂", "x", "1984", "don't", "café", "\ufffd"]
)
BETWEEN = st.sampled_from(
    [
        " ",
        " ",
        " ",
        ", ",
        ". ",
        "\n",
        "\n\n",
        ".\n",
        "  ",
        " \n ",
        "\t",
        "!!\n\n",
        "-",
        " (",
        "\r\n",
    ]
)
TEXTS = st.lists(st.tuples(WORDS, BETWEEN), max_size=50).map(
    lambda pairs: "".join(word + between for word, between in pairs)
)

LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<s>[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'system' %}{{ m.content + '\n' }}{% else %}"
    "{{ ' ' + m.content + ' </s>' }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<s>' + m.role + '\n' + m.content + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
BARE = (
    "{% for m in messages %}{{ ('<s>' if m.role == 'user' else '') + m.content + '</s>' }}"
    "{% endfor %}"
)
TEMPLATES = {"Llama 2": LLAMA_2, "Zephyr": ZEPHYR, "bare": BARE}


@cache
def of_family(name: str) -> tuple[Tokenizer, Library, PreTrainedTokenizerFast]:
    """A family's tokenizer: ours, the library's and that of transformers."""
    library = Library.from_str(family_json(name))
    library.no_truncation()
    library.no_padding()
    library.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>")]
    )
    content = library.to_str()
    return Tokenizer(content), library, PreTrainedTokenizerFast(tokenizer_object=library)


@cache
def turns_of(name: str, template: str) -> Turns:
    """What a template puts around turns, for a family."""
    return Turns(of_family(name)[0], chat_of(TEMPLATES[template]), [])


def whole(name: str, text: str) -> list[int]:
    """Tokens of a text that is not cut."""
    ids: list[int] = of_family(name)[1].encode(text, add_special_tokens=False).ids
    return ids


def read(name: str, text: str, length: int) -> list[int]:
    """Tokens of a text that is read in segments."""
    with patch.object(segments, "SEGMENT_CHARACTERS", length):
        reading = Reading(of_family(name)[0], SourceMark())
        pieces = [*reading.push(text.encode()), *reading.finish()] if text else []
    return [token for piece in pieces for token in piece]


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=25, deadline=None)
@given(text=TEXTS)
def test_the_segments_of_a_text_join_to_the_tokens_of_the_whole(name: str, text: str) -> None:
    assert read(name, text, 150) == whole(name, text)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_long_text_read_in_segments_has_no_token_more_than_the_whole(name: str) -> None:
    text = "The key of the boathouse hangs in the hall, and nobody had been there.\n" * 90
    assert read(name, text, segments.SEGMENT_CHARACTERS) == whole(name, text)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=8, deadline=None)
@given(question=TEXTS, answer=TEXTS, system=st.none() | TEXTS)
def test_a_conversation_has_the_tokens_that_transformers_gives_it(
    name: str, template: str, question: str, answer: str, system: str | None
) -> None:
    tokenizer, _, theirs = of_family(name)
    turns = turns_of(name, template)
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": question})

    def expected() -> list[int]:
        ids: list[int] = theirs.apply_chat_template(
            messages,
            chat_template=TEMPLATES[template],
            add_generation_prompt=True,
            return_dict=False,
        )
        return ids

    asked = turns.question("start", question, system)
    assert asked == expected()
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": question}]
    answered = [*asked, *turns.answer(answer), *turns.question("reply", question, None)]
    # This one drops the line end before the answer, which is not known to come then.
    if name != "unigram":
        assert tokenizer.decode(answered) == tokenizer.decode(expected())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=8, deadline=None)
@given(text=TEXTS)
def test_a_document_has_the_tokens_of_a_question_with_the_same_text(
    name: str, template: str, text: str
) -> None:
    text = "The " + text + "end"
    tokenizer, turns = of_family(name)[0], turns_of(name, template)
    opening, lead = turns.open_document("start", False, None)
    reading = Reading(
        tokenizer, SourceMark(), lead=lambda: (lead, turns.behind("document", opening))
    )
    pieces = [opening, *reading.push(text.encode()), *reading.finish()]
    read = [token for piece in pieces for token in piece]
    assert turns.question("start", text, None)[: len(read)] == read


def test_text_of_a_person_joins_a_template_without_making_a_control_token() -> None:
    tokenizer = of_family("Prepend")[0]
    parts = [Part("<s>[INST] <", True), Part("/s> the key </s>", False), Part(" [/INST]", True)]
    ids = tokenizer.encode_parts(parts)
    assert [token for token in ids if token in tokenizer.control] == ids[:1]
    assert tokenizer.decode(ids) == "[INST] </s> the key </s> [/INST]"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_cut_behind_which_only_spaces_are_known_is_not_relied_on(name: str) -> None:
    """Some tokenizers drop spaces at the end of a text, and only there."""
    text = ("the key hangs in the hall " * 5 + "\n\n" + " " * 8) * 12
    for length in range(138, 146):  # ends between the line ends and the next word
        assert read(name, text, length) == whole(name, text)
