"""Characters that a vocabulary lacks come as bytes, one a token, and are never shown in parts."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_families import BYTES, family_json
from tokenizers import Tokenizer as Library

from allmem_runtime.text.tokenizer import Tokenizer

FAMILIES = ("Metaspace always", "Metaspace first", "Metaspace never", "Prepend", "Replace")
"""Those with bytes for what has no token, as Llama 2 and Mistral 7B have them."""
REPLACEMENT = "\ufffd"
TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"], exclude_characters=REPLACEMENT),
        st.sampled_from("the key of 東京 \U0001f469\u200d\U0001f680 e\u0301 ü\n\t▁"),
    ),
    min_size=1,
    max_size=60,
)


@cache
def of_family(name: str) -> tuple[Tokenizer, Library]:
    """A family's tokenizer, ours and the library's."""
    return Tokenizer(family_json(name)), Library.from_str(family_json(name))


def is_byte(library: Library, token: int) -> bool:
    """Whether a token stands for a byte."""
    return library.id_to_token(token) in BYTES


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_no_part_of_a_character_is_shown_and_nothing_waits_longer_than_a_run_of_bytes(
    name: str, text: str
) -> None:
    tokenizer, library = of_family(name)
    ids = tokenizer.encode_text(text)
    stream = tokenizer.stream()
    shown = ""
    for count, token in enumerate(ids, 1):
        shown += stream.push(token)
        assert REPLACEMENT not in shown
        if not is_byte(library, token):
            assert shown == library.decode(ids[:count])
    assert shown + stream.finish() == library.decode(ids)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_what_is_shown_of_a_text_is_the_text(name: str, text: str) -> None:
    tokenizer, _ = of_family(name)
    stream = tokenizer.stream()
    shown = "".join(map(stream.push, tokenizer.encode_text(text))) + stream.finish()
    # The sign for a space is one, and the space in front of a text may be the tokenizer's own.
    wanted = text.replace("▁", " ")
    assert shown in (wanted, wanted.removeprefix(" "))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kept", [1, 2, 3])
def test_an_answer_that_ends_within_a_character_shows_all_before_it(name: str, kept: int) -> None:
    tokenizer, library = of_family(name)
    whole, cut = tokenizer.encode_text("the key \U0001f680"), tokenizer.encode_text("the key ")
    ids = whole[: len(cut) + kept]
    assert all(is_byte(library, token) for token in ids[len(cut) :])
    stream = tokenizer.stream()
    assert "".join(map(stream.push, ids)) == "the key "
    assert stream.finish() == REPLACEMENT * kept


def test_word_pieces_are_shown_as_words() -> None:
    tokenizer, library = of_family("word pieces")
    text = "The keys hung here, and nobodies boats had been asked!"
    ids = tokenizer.encode_text(text)
    assert sum(library.id_to_token(token).startswith("##") for token in ids) > 3
    stream = tokenizer.stream()
    pieces = [stream.push(token) for token in ids]
    assert all(pieces), "each piece is shown as it comes"
    assert "".join(pieces) + stream.finish() == library.decode(ids) == text.lower()
