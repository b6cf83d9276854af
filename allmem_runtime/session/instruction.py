"""What a question asked of passages is followed by: to answer from them, and how long."""

from __future__ import annotations

from allmem_runtime.text.stems import stemmed

FROM_THE_TEXT = " Answer from the text above."
BRIEFLY = " Answer from the text above, in a few words."

_LONGER = """
    explain explanation describ descript elaborat detail compare comparison list lists enumerat
    outline translat steps
    erklär beschreib ausführlich vergleich aufzähl übersetz schritt
    expliqu décri détail énumèr tradui étape
    explic describ detall enumer traduc pasos
    spieg descri dettagli confront elenca
    解释 描述 详细 列出 比较 説明 詳しく 列挙 설명 자세히
"""
_STEMS = frozenset(_LONGER.split())


def instruction(question: str) -> str:
    """What stands behind a question after the passages it is asked of.

    A small model answers a plain question most surely in a few words; a question that asks for
    more by its own words (explain, describe, list) is not cut short.

    Args:
        question: of the user.
    """
    return FROM_THE_TEXT if stemmed(question, _STEMS) else BRIEFLY
