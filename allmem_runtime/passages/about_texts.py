"""Words that speak of a text and are seldom what is asked for: summary, topic, main points.

A question that is made of them asks for the whole text, which the state knows, and not for a
passage. Stems, in languages people often ask in; a word that is missing here costs no more than
some passages read without need, and one too many asks more of the other words.
"""

from __future__ import annotations

from allmem_runtime.passages.scripts import grams
from allmem_runtime.text.stems import stemmed

_WORDS = """
    summar synops gist overview outline abstract tldr topic theme tone genre text document article
    main overall about takeaway takeaways points ideas conclus purpose sentences paragraph
    paraphras explain
    zusammenfass zusammengefasst überblick thema dokument artikel inhalt hauptsächlich kernaussag
    handelt worum
    résum thème sujet parle principaux principales
    resum tema trata principales riassum argomento tratta
    总结 概括 主题 大意 全文 要約 主題 概要 あらすじ 요약 주제 สรุป หัวข้อ
"""
_STEMS = tuple(_WORDS.split())


def about_texts(question: str) -> frozenset[str]:
    """The words of a question that speak of texts, and pairs of characters in such words."""
    found = stemmed(question, _STEMS)
    return found.union(*(grams(word) for word in found))
