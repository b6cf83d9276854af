"""Cutting a text into passages: no loss, alike however it arrives, cuts where they belong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allmem_runtime.passages.cutting import LONGEST, LOOK, SHORTEST, Cut, Cutter

PROSE = (
    "The keeper of the lighthouse wrote his log each night, e.g. about the wind. He never missed "
    "one. In the year of the flood, Dr. Abel came over from the mainland with two boxes of "
    "books. Nobody knew why!\n\n"
) * 12
WRAPPED = (
    "It was the habit of the house that the doors stood open until the lamps were lit, and\n"
    "only then did the children come in from the yard. Their mother counted them twice. The\n"
    "dog was counted too, and given its water.\n"
) * 12
LOG = "".join(
    f"2024-03-{day:02d} 10:{day:02d}:07 INFO worker-{day} finished job {day * 37} in {day} ms\n"
    for day in range(1, 31)
)
CODE = "".join(
    f"def step_{n}(state, tokens):\n    if not tokens:\n        return state\n"
    f"    return advance(state, tokens, {n})\n\n\n"
    for n in range(40)
)
CHINESE = (
    "灯塔的看守人每天晚上都写日志。他从来没有错过一次！洪水那年，阿贝尔医生带着两箱书从大陆来了。"
    * 40
)
JAPANESE = (
    "灯台守は毎晩日誌を書いた。「一度も忘れたことはない」と彼は言った。洪水の年、医者が来た！" * 40
)
TABLE = "| name | town | number |\n|---|---|---|\n" + "".join(
    f"| Keeper {n} of the northern light | Ardmouth, upper town | {n * 37} |\n" for n in range(60)
)
TABS = "".join(f"keeper {n}\tArdmouth\t{n * 37}\t2024-03-{n % 28 + 1:02d}\n" for n in range(90))
THAI = "ผู้ดูแลประภาคารเขียนบันทึกทุกคืน เขาไม่เคยพลาดสักครั้ง ปีที่น้ำท่วม หมอมาจากแผ่นดินใหญ่ " * 30


def cut(text: str, pieces: list[str] | None = None) -> list[Cut]:
    cutter = Cutter()
    cuts = [passage for piece in pieces or [text] for passage in cutter.push(piece)]
    return [*cuts, *cutter.rest()]


TEXTS = {
    "Japanese": JAPANESE, "table": TABLE, "tabs": TABS,
    "prose": PROSE, "wrapped": WRAPPED, "log": LOG, "code": CODE, "Chinese": CHINESE, "Thai": THAI,
    "one line": "x" * 5000, "spaces": " " * 5000, "line ends": "\n" * 5000, "short": "One.", "": "",
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_passages_are_the_text_and_know_their_places(name: str) -> None:
    text = TEXTS[name]
    cuts = cut(text)

    assert "".join(passage.text for passage in cuts) == text
    for passage in cuts:
        assert text[passage.start : passage.end] == passage.text
        assert passage.line == 1 + text[: passage.start].count("\n")
    assert all(SHORTEST // 2 <= len(passage.text) <= LONGEST for passage in cuts[:-1])


@given(st.text(max_size=3000), st.integers(1, 700))
def test_any_text_is_cut_without_loss_and_alike_however_it_arrives(text: str, size: int) -> None:
    text = (text + " and more. ") * (1 if len(text) > 900 else 12)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]

    assert cut(text, pieces) == cut(text)
    assert "".join(passage.text for passage in cut(text)) == text


def test_cutting_goes_on_from_any_cut_that_was_certain() -> None:
    text = PROSE + LOG + CODE
    cuts = cut(text)
    for number, passage in enumerate(cuts):
        cutter = Cutter(passage.start, passage.line)
        assert [*cutter.push(text[passage.start :]), *cutter.rest()] == cuts[number:]


def test_a_cut_needs_no_more_than_look_characters() -> None:
    text = PROSE + CODE
    cutter = Cutter()
    for at, character in enumerate(text, 1):
        for passage in cutter.push(character):
            assert passage.start + LOOK == at


def test_rest_leaves_the_cutter_as_it_was() -> None:
    cutter = Cutter()
    cutter.push(PROSE[:500])
    assert cutter.rest() == cutter.rest()
    assert cutter.push(PROSE[500:]) == Cutter().push(PROSE)


def ends(text: str) -> list[str]:
    return [passage.text for passage in cut(text)[:-1]]


def test_prose_is_cut_between_sentences_and_not_at_abbreviations() -> None:
    for text in (PROSE, PROSE.replace("\n\n", " "), WRAPPED):
        for passage in ends(text):
            assert passage.rstrip().endswith((".", "!")), passage
            assert not passage.rstrip().endswith(("e.g.", "Dr.")), passage


def test_paragraphs_stay_whole_where_they_fit() -> None:
    assert all(passage.endswith("!\n\n") for passage in ends(PROSE))


def test_logs_code_and_tables_are_cut_between_lines() -> None:
    for text in (LOG, CODE, TABLE, TABS):
        assert all(passage.endswith("\n") for passage in ends(text))


def test_functions_stay_whole() -> None:
    assert all(passage.startswith("def ") for passage in ends(CODE))


def test_a_heading_stays_with_its_text() -> None:
    sections = "".join(f"## Part {n}\n\n{PROSE[:197]}\n\n" for n in range(20))
    assert all(passage.startswith("## ") for passage in ends(sections))


def test_scripts_without_spaces_are_cut_at_their_own_signs() -> None:
    for text in (CHINESE, JAPANESE):
        assert all(passage.endswith(("。", "！", "」")) for passage in ends(text))
        assert max(len(passage) for passage in ends(text)) <= LONGEST // 2
    assert all(passage.endswith(" ") for passage in ends(THAI))


def test_no_character_is_parted_from_its_marks() -> None:
    for passage in cut("e\u0301" * 4000)[1:]:
        assert passage.text.startswith("e")


def test_a_line_of_a_million_characters_is_cut_like_any_other() -> None:
    line = "y" * 999_999 + "\n" + PROSE
    cuts = cut(line)
    assert "".join(passage.text for passage in cuts) == line
    assert max(len(passage.text) for passage in cuts) <= LONGEST
    assert [passage.line for passage in cuts[:2000]] == [1] * 2000
