"""Words that speak of a text and are seldom in it: of a summary, a topic, a title.

A question that is made of them asks for the whole text, which the state knows, and not for a
passage. Stems, in languages people often ask in; a word that is missing here costs no more than
some passages read without need.
"""

from __future__ import annotations

import re

from allmem_runtime.passages.scripts import grams

_WORDS = """
    summar synops gist overview outline abstract tldr topic theme title headline tone genre text
    document article story book chapter passage content author writer narrat reader audience
    main overall about key takeaway takeaways point points idea ideas argument messag conclus
    moral purpose sentence sentences paragraph describ explain rewrit paraphras
    zusammenfass zusammengefasst überblick thema titel autor autorin geschicht dokument artikel
    kapitel inhalt hauptsächlich kernaussag handelt worum
    résum thème sujet titre auteur histoire livre chapitre parle principal principaux principale
    resum tema título autor historia libro capítulo trata riassum libro storia argomento tratta
    总结 概括 主题 标题 作者 大意 中心 全文 文章 要約
    主題 題名 著者 概要 あらすじ 요약 주제 제목 สรุป หัวข้อ
"""
_STEMS = tuple(_WORDS.split())
_SHORTEST_STEM = 5
_WORD = re.compile(r"\w+")


def about_texts(question: str) -> frozenset[str]:
    """The words of a question that speak of texts, and pairs of characters in such words.

    A stem of five letters or more stands for all its forms.
    """
    found = set()
    for word in _WORD.findall(question.casefold()):
        if any(word == s or (len(s) >= _SHORTEST_STEM and word.startswith(s)) for s in _STEMS):
            found.add(word)
    for stem in _STEMS:
        if stem in question:
            found.update(grams(stem))
    return frozenset(found)
