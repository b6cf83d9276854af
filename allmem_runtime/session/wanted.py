"""What a question wants by its own words: one fact in brief, more about it, or several things."""

from __future__ import annotations

import re

from allmem_runtime.text.stems import stemmed

FROM_THE_TEXT = " Answer from the text above."
BRIEFLY = " Answer from the text above, in a few words."

_MORE = """
    explain explanation describ descript elaborat detail compare comparison outline translat steps
    erklär beschreib ausführlich vergleich übersetz schritt
    expliqu décri détail tradui étape
    explic describ detall traduc pasos
    spieg descri dettagli confront
    解释 描述 详细 比较 説明 詳しく 설명 자세히
"""
_SEVERAL = """
    all every everything everybody everyone each both list lists enumerat
    alle alles sämtlich beide jede jeder jedes aufzähl
    tous toutes tout chaque énumèr
    todo todos toda todas ambos cada enumer
    tutti tutte tutto entramb ogni elenc
    所有 全部 每个 列出 すべて 全て 列挙 모두 모든
"""
_MORE_STEMS, _SEVERAL_STEMS = tuple(_MORE.split()), tuple(_SEVERAL.split())
# In two, since a pattern for both would look at the rest of a long list behind each comma of it.
_ENUMERATION = re.compile(r"\w, \w")
_LAST_OF_IT = re.compile(r" (?:and|or|und|oder|et|ou|y|o|e) \w")
_ENUMERATION_OF_SIGNS = re.compile(r"\w、\w")
_STOP = re.compile(r"[.?!]")


def wants_several(question: str) -> bool:
    """Whether a question asks for several things, which may stand in several places.

    Args:
        question: of the user.
    """
    if stemmed(question, _SEVERAL_STEMS) or _ENUMERATION_OF_SIGNS.search(question):
        return True
    begun = ((part, _ENUMERATION.search(part)) for part in _STOP.split(question))
    return any(first and _LAST_OF_IT.search(part, first.end()) for part, first in begun)


def passages_wanted(question: str, most: int) -> int:
    """How many passages a question is answered from at most: twice as many for several things.

    Args:
        question: of the user.
        most: for one thing.
    """
    return 2 * most if wants_several(question) else most


def instruction(question: str) -> str:
    """What stands behind a question after the passages it is asked of.

    A small model answers a plain question most surely in a few words; one that asks for more is not
    cut short.

    Args:
        question: of the user.
    """
    brief = not (stemmed(question, _MORE_STEMS) or wants_several(question))
    return BRIEFLY if brief else FROM_THE_TEXT
