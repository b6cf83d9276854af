"""From a question to passages: the right ones, within the budget, and none where none fits."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from passage_tools import Reader

from allmem_runtime.passages import search
from allmem_runtime.passages.keeping import Text
from allmem_runtime.session.kept_text import Passage
from benchmarks.passages.facts import Fact, facts, hidden


def prose(sentences: int, seed: int = 0) -> str:
    """Sentences of common words, some rare ones among them, in paragraphs."""
    draw = random.Random(seed)
    common = "the a of and to in it was that he she they had with for on at by from as"
    others = [
        "".join(
            draw.choice("bdfglmnprst") + draw.choice("aeiou") for _ in range(draw.randint(2, 4))
        )
        for _ in range(1500)
    ]
    parts = []
    for number in range(sentences):
        words = [
            draw.choice(common.split()) if draw.random() < 0.5 else draw.choice(others)
            for _ in range(draw.randint(6, 20))
        ]
        parts.append(" ".join(words).capitalize() + (".\n\n" if number % 7 == 6 else ". "))
    return "".join(parts)


def count(text: str) -> int:
    return len(text) // 4 + 1


def read(text: str, name: str = "book.txt") -> Reader:
    reader = Reader(Text(None))
    reader.read(text, name)
    return reader


def find(
    reader: Reader, question: str, *earlier: str, most: int = 3, tokens: int = 340
) -> list[Passage]:
    return reader.text.find(reader.at, question, earlier, most, tokens, count)


@pytest.fixture(scope="module")
def told() -> tuple[list[Fact], Reader, str]:
    """160 facts among 480 that look like them, each of which shares its names with others."""
    pairs = list(facts(1, 160))
    statements = [text for fact, others in pairs for text in (fact.text, *others)]
    random.Random(2).shuffle(statements)
    text = hidden(prose(9000), statements, 3)
    return [fact for fact, _ in pairs], read(text), text


def test_facts_in_everyday_forms_are_found_among_others_like_them(
    told: tuple[list[Fact], Reader, str],
) -> None:
    asked, reader, _ = told
    missed = [
        fact.question
        for fact in asked
        if not any(fact.text in passage.text for passage in find(reader, fact.question))
    ]
    assert len(missed) <= len(asked) * 0.05, missed


def test_passages_know_where_they_stand(told: tuple[list[Fact], Reader, str]) -> None:
    asked, reader, text = told
    for fact in asked[:40]:
        for passage in find(reader, fact.question):
            for place, words in (
                (passage.place, passage.text),
                (passage.sentence_place, passage.sentence),
            ):
                own = text[place.character :][: 2 * len(words) + 200]
                assert " ".join(own.split()).startswith(" ".join(words.split())[:80])
                assert place.line == 1 + text[: place.character].count("\n")
                assert place.source == "book.txt"
                assert abs(place.token - place.character / 4) <= 0.02 * place.token + 16


def test_the_best_sentence_is_quoted(told: tuple[list[Fact], Reader, str]) -> None:
    asked, reader, _ = told
    right = 0
    for fact in asked:
        passage = next((p for p in find(reader, fact.question) if fact.text in p.text), None)
        right += passage is not None and fact.answer in passage.sentence
    assert right >= 0.85 * len(asked), right


@pytest.mark.parametrize(("most", "tokens"), [(1, 340), (3, 120), (3, 30), (8, 1000)])
def test_budget_is_kept(told: tuple[list[Fact], Reader, str], most: int, tokens: int) -> None:
    asked, reader, _ = told
    for fact in asked[:40]:
        found = find(reader, fact.question, most=most, tokens=tokens)
        assert len(found) <= most
        assert sum(count(passage.text) for passage in found) <= tokens + len(found)
        assert all(passage.tokens == count(passage.text) for passage in found)


def test_nothing_is_found_for_no_passages_or_no_room(told: tuple[list[Fact], Reader, str]) -> None:
    asked, reader, _ = told
    assert find(reader, asked[0].question, most=0) == []
    assert find(reader, asked[0].question, tokens=0) == []


@pytest.mark.parametrize(
    "question",
    ["What is this about?", "What is the text about?", "Summarize the text.", "Give a summary.",
     "What is the main topic of the document?", "Summarize it in two sentences. What is it about?",
     "What are the main points? Answer in one paragraph.", "Give me a short overview, please.",
     "Quel est le thème du texte ?", "¿De qué trata el texto?", "この文章の要約は？", "สรุปข้อความนี้",
     "Worum geht es in dem Text?", "总结全文的主题"],
)  # fmt: skip
def test_questions_about_the_whole_get_no_passage(
    told: tuple[list[Fact], Reader, str], question: str
) -> None:
    assert find(told[1], question) == []


def test_what_the_text_does_not_speak_of_is_not_found(
    told: tuple[list[Fact], Reader, str],
) -> None:
    assert find(told[1], "Name lactose-splitting enzymes.") == []


def test_earlier_turns_help_and_the_question_counts_more() -> None:
    reader = read(
        prose(400)
        + "Marta Quell keeps her boat at Ardmouth.\n\n"
        + prose(400, 1)
        + "Oskar Lind keeps his boat at Penhallow.\n\n"
        + prose(400, 2)
    )
    assert "Ardmouth" in find(reader, "Where is the boat?", "Who is Marta Quell?")[0].text
    assert "Penhallow" in find(reader, "Where is the boat?", "Who is Oskar Lind?")[0].text
    best = find(reader, "And the boat of Oskar Lind?", "Who is Marta Quell?")[0]
    assert "Penhallow" in best.text


def test_a_question_that_names_nothing_leans_on_the_turn_before() -> None:
    asides = "".join(f"{prose(60, seed)}Nobody told them why.\n\n" for seed in range(8))
    reader = read(asides + "Marta Quell sold her boat, for the harbor was dry.\n\n" + asides)
    assert "harbor" in find(reader, "And why?", "Who is Quell?")[0].text


def test_a_question_that_names_something_is_not_drawn_to_the_turn_before() -> None:
    before = "Marta Quell sold her wooden boat at Ardmouth because its harbor was dry."
    reader = read(
        f"{prose(400)}{before}\n\n{prose(400, 1)}The teapot is on a shelf.\n\n{prose(400, 2)}"
    )
    (found,) = find(reader, "Where is the teapot?", f"Who sold her boat?\n{before}")
    assert "The teapot is on a shelf." in found.text


@pytest.mark.parametrize("question", ["Explain the fire.", "And what about the fire?"])
def test_earlier_turns_do_not_hide_what_a_question_about_the_text_names(question: str) -> None:
    reader = read(
        prose(400)
        + "The fire was an accident.\n\n"
        + prose(400, 1)
        + "Marta Quell keeps her boat at Ardmouth, beside the granite breakwater.\n\n"
        + prose(400, 2)
    )
    chat = ["Where does Marta Quell keep her boat?\nAt Ardmouth, beside the granite breakwater."]
    (found,) = find(reader, question, *chat)
    assert "The fire was an accident." in found.text
    for whole in ("Summarize the text.", "Summarize it.", "What is this about?"):
        assert find(reader, whole, *chat) == []


def test_each_of_several_things_that_are_asked_for_is_found() -> None:
    keys = ["calm-otter", "pale-fiddle", "brisk-lantern", "mossy-anvil"]
    told = [f"One of the delivery codes for {key} is {7 * n}3." for n, key in enumerate(keys, 40)]
    text = "".join(prose(150, n) + f"{fact}\n\n" for n, fact in enumerate(told)) + prose(150, 9)
    question = (
        f"What are all the delivery codes for {', '.join(keys)} mentioned in the provided text?"
    )
    found = find(read(text), question, most=4)
    assert all(any(fact in passage.text for passage in found) for fact in told)


INSTRUCTION = "Answer briefly and from the letters alone, without any other words or guesses. "


def test_what_stands_beside_the_question_does_not_take_its_place(
    told: tuple[list[Fact], Reader, str],
) -> None:
    asked, _, text = told
    reader = read(INSTRUCTION + "\n\n" + text)
    right = [
        any(fact.text in p.text for p in find(reader, f"{INSTRUCTION}\n\n{fact.question}"))
        for fact in asked
    ]
    assert sum(right) >= 0.9 * len(right)


def test_sentences_beside_the_question_still_tell_who_is_meant() -> None:
    ships = "The Pelican lies off Penhallow.\n\n", "The Merganser lies off Ardmouth.\n\n"
    reader = read(prose(300) + ships[0] + prose(300, 1) + ships[1] + prose(300, 2))
    for ship, town in (("Pelican", "Penhallow"), ("Merganser", "Ardmouth")):
        found = find(reader, f"My uncle sailed on the {ship}. Where does it lie?")
        assert town in found[0].text


def test_of_a_passage_the_best_sentence_and_those_around_it_are_taken() -> None:
    around = "One came before it. The kestrel of Ardmouth nests in the tower. One came after it."
    plain = "Somebody else did something else somewhere else. "
    text = prose(300) + f"\n\n{plain * 5}{around} {plain * 5}\n\n" + prose(300, 1)
    (passage,) = find(read(text), "Where does the kestrel of Ardmouth nest?")
    assert around in passage.text
    assert len(passage.text) <= search.AGAIN
    assert text[passage.place.character :].startswith(passage.text)


def test_a_paragraph_is_taken_without_those_around_it_unless_it_is_short() -> None:
    others = "Somebody else did something else.\n\n", "Somebody did another thing elsewhere.\n\n"
    nest = "The kestrel of Ardmouth nests in the tower."
    long = nest + " It has done so since the roof fell in, and nobody knows why it came." * 2
    for paragraph, alone in ((long, True), (nest, False)):
        text = prose(300) + f"\n\n{others[0]}{paragraph}\n\n{others[1]}" + prose(300, 1)
        (passage,) = find(read(text), "Where does the kestrel of Ardmouth nest?")
        assert paragraph in passage.text
        assert (passage.text.strip() == paragraph) == alone


def test_what_fits_far_less_than_the_best_is_left_out() -> None:
    text = prose(300) + "The kestrel of Ardmouth nests in the tower.\n\n" + prose(300, 1)
    text += "A tower fell.\n\n" + prose(300, 2)
    assert len(find(read(text), "In which tower does the kestrel of Ardmouth nest?")) == 1
    assert len(find(read(text), "Which tower?")) == 2


def test_passages_that_follow_each_other_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "AGAIN", 800)
    about = "The kestrel of Ardmouth nests in the tower. " * 30
    found = find(read(prose(300) + about + prose(300, 1)), "the kestrel of Ardmouth", tokens=900)
    assert len(found) == 1
    assert len(found[0].text) > 800


@pytest.mark.parametrize(
    ("fact", "question", "alphabet"),
    [
        ("灯塔的钥匙藏在厨房的蓝色茶壶里。", "灯塔的钥匙在哪里？", (0x4E00, 0x5000)),
        ("鍵は台所の青い急須の中にある。", "鍵はどこにある？", (0x3042, 0x3093)),
        ("กุญแจประภาคารอยู่ในกาน้ำชาสีฟ้า ", "กุญแจประภาคารอยู่ที่ไหน", (0x0E01, 0x0E2E)),
        ("등대의 열쇠는 파란 찻주전자 안에 있다. ", "등대 열쇠는 어디에 있나요?", (0xAC00, 0xAD00)),
    ],
)
def test_scripts_without_spaces_are_searched(
    fact: str, question: str, alphabet: tuple[int, int]
) -> None:
    draw = random.Random(4)
    noise = "".join(
        "。" if n % 23 == 22 else " " if n % 11 == 5 else chr(draw.randint(*alphabet))
        for n in range(20000)
    )
    found = find(read(noise[:9000] + "\n" + fact + "\n" + noise[9000:]), question)
    assert fact.strip() in found[0].text


def test_stems_accents_and_case_are_forgiven() -> None:
    reader = read(
        prose(300) + "Les élèves de Béziers plantaient des cerisiers.\n\n" + prose(300, 1)
    )
    assert "cerisiers" in find(reader, "ELEVES BEZIERS")[0].text
    reader = read(prose(300) + "The foundries were closing.\n\n" + prose(300, 1))
    assert "foundries" in find(reader, "Which foundry closed?")[0].text


HARMLESS = [
    "", " ", "\n", "\0", "\x1b[2J", '"', '""', "'", "'; DROP TABLE passage; --", "*", "text:",
    "^",
    "NEAR(a b, 3)", "AND", "OR NOT", "kestrel AND", "(", "kestrel*", "{text grams} : kestrel", "-",
    "שלום לכולם", "\u202egnp.exe", "مرحبا بالعالم", "𝒦𝑒𝓈𝓉𝓇𝑒𝓁", "🦅", "a" * 1_000_000,
    "a " * 200_000, "." * 100_000, "a-" * 100_000,
    "\ud800", "%s %d {0}", "text : grams",
]  # fmt: skip


@pytest.mark.parametrize("question", HARMLESS, ids=range(len(HARMLESS)))
def test_no_question_is_more_than_words(question: str) -> None:
    reader = read("The kestrel nests in the tower. " * 3 + prose(200))
    find(reader, question)
    find(reader, "kestrel", question)
    assert "kestrel" in find(reader, "Where is the kestrel?")[0].text


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_question_is_harmless(question: str) -> None:
    assert all(passage.text in SMALL_TEXT for passage in find(SMALL, question))


SMALL_TEXT = "One two three. " * 100
SMALL = read(SMALL_TEXT)


def test_any_text_can_be_kept_and_asked(tmp_path: Path) -> None:
    for text in ("\0" * 5000, "x" * 1_000_000, "\u202e" * 3000, '"' * 3000, "🦅" * 3000):
        reader = read(text)
        assert isinstance(find(reader, text[:100]), list)
