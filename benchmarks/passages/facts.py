"""Facts as people write them down, each with a question, and others that look like them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.replace("\n", " ").split("|")]


FIRST = _names(
    "Priya|Tomasz|Ingrid|Kofi|Beatriz|Yusuf|Hana|Liam|Mei|Olga|Samir|Greta|Diego|Amara|Wren"
)
FAMILY = _names(
    "Nair|Wilk|Halvorsen|Mensah|Rocha|Demir|Novak|Doyle|Tanaka|Petrova|Haddad|Ortiz|Kaya"
)
TOWNS = [
    f"{side}{town}"
    for town in _names("""Ashcombe|Velden|Porto Lume|Kirkhaven|Sandvik|Marlow Bay|Tresco|Aldine|
    Harrowgate|Nyland|Corvo|Steinbach|Lowmoor|Pinefield|Ravenna Falls|Quillan|Osterby|Dunmore|
    Esker|Belmonte""")
    for side in ("", "Old ", "East ", "Upper ")
]
THINGS = _names("""boathouse|greenhouse|observatory|bakery|clinic|archive|tannery|ferry|orchard|
    sawmill|chapel|windmill|cinema|foundry|library|stable|brewery|lighthouse|museum|quarry""")
ANIMALS = _names("""alpacas|bees|ferrets|geese|goats|otters|pigeons|ponies|quails|rabbits|
    salamanders|tortoises""")
COLORS = _names("amber|crimson|indigo|ivory|khaki|magenta|olive|russet|teal|turquoise|umber|violet")
DISHES = _names("""bouillabaisse|chowder|dumplings|frittata|goulash|lasagna|paella|pierogi|ramen|
    risotto|tagine""")
MONTHS = _names("""January|February|March|April|May|June|July|August|September|October|November|
    December""")


@dataclass(frozen=True, slots=True)
class Fact:
    """Something told once in a text.

    Args:
        text: as it is told.
        question: that asks for it.
        answer: what the answer must hold.
        kind: of the form it has.
    """

    text: str
    question: str
    answer: str
    kind: str


# A statement and a question about it; {a} is what is asked for. The words of the two differ as
# they do where people ask about what others wrote.
_FORMS: dict[str, tuple[str, str, str]] = {
    "letter": ("My sister wrote that {p} has finally moved to {t}, into the rooms above the {h}.",
               "Which town did {p} move to?", "t"),
    "phone": ("If anything breaks at the {h} in {t}, call {p} at extension {n}; she never sleeps.",
              "What is {p}'s phone extension?", "n"),
    "recipe": ("Everyone brought something, but {p} had cooked {d} for all of them.",
               "What did {p} cook?", "d"),
    "animals": ("Behind the {h} {p} keeps {m} {x}, which the neighbors pretend not to hear.",
                "What kind of animals does {p} keep?", "x"),
    "price": ("The {h} in {t} was sold in the end for {n} crowns, less than its roof had cost.",
              "For how many crowns was the {h} in {t} sold?", "n"),
    "color": ("They painted the door of the {h} in {t} {c}, because that was the paint they had.",
              "What color is the door of the {h} in {t}?", "c"),
    "birthday": ("{p} was born on the {m}th of {o}, in the middle of a storm.",
                 "When was {p} born?", "o"),
    "code": ("The lock of the {h} at {t} opens with {n}. Do not write it on the wall again.",
             "Which number opens the lock of the {h} at {t}?", "n"),
    "train": ("The last train to {t} leaves from platform {m}, not from where the sign says.",
              "From which platform does the last train to {t} leave?", "m"),
    "founder": ("It was {p} who started the {h} in {t}, with money she had won at cards.",
                "Who founded the {h} in {t}?", "p"),
    "favorite": ("Nobody understood why {p} liked {c} so much that even the car had to be {c}.",
                 "What is {p}'s favorite color?", "c"),
    "log": ("{y}-{z}-{w} 04:{w}:11 WARN {h}-{m} on host {s}: queue full, {n} messages dropped",
            "How many messages did {h}-{m} on host {s} drop?", "n"),
    "table": ("| {p} | {t} | {n} | {o} |", "Which number stands beside {p} in the table?", "n"),
    "setting": ("{h}_{c}_timeout_ms = {n}  # raised after the outage in {o}",
                "What is {h}_{c}_timeout_ms set to?", "n"),
    "clause": ("§ {m}.{w} The tenant of the {h} in {t} shall give notice {m} weeks before leaving.",
               "How many weeks of notice must the tenant of the {h} in {t} give?", "m"),
    "gossip": ("\"You know {p}?\" he said. \"Gave up the law, sells {x} in {t} now.\"",
               "What does {p} sell these days?", "x"),
}  # fmt: skip

KINDS = tuple(_FORMS)


def facts(seed: int, count: int, alike: int = 3) -> Iterator[tuple[Fact, list[str]]]:
    """Facts, each with statements of the same form about others.

    Args:
        seed: the same seed, the same facts.
        count: how many.
        alike: statements beside each.
    """
    draw = random.Random(seed)
    asked_before: set[str] = set()
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        statement, question, asked = _FORMS[kind]
        told: list[tuple[dict[str, str], str]] = []
        while len(told) <= alike:
            values = _values(draw)
            asking = question.format(**values)
            if asking not in asked_before:  # no two statements answer one question
                asked_before.add(asking)
                told.append((values, asking))
        texts = [statement.format(**values) for values, _ in told]
        values, asking = told[0]
        yield Fact(texts[0], asking, values[asked], kind), texts[1:]


def _values(draw: random.Random) -> dict[str, str]:
    pick = draw.choice
    return {
        "p": f"{pick(FIRST)} {pick(FAMILY)}",
        "t": pick(TOWNS), "h": pick(THINGS), "x": pick(ANIMALS),
        "c": pick(COLORS), "d": pick(DISHES), "o": pick(MONTHS), "n": str(draw.randint(1000, 9999)),
        "m": str(draw.randint(2, 28)), "y": str(draw.randint(2011, 2024)),
        "z": f"{draw.randint(1, 12):02d}", "w": f"{draw.randint(10, 28)}",
        "s": f"node{draw.randint(10, 99)}",
    }  # fmt: skip


def hidden(prose: str, told: list[str], seed: int) -> str:
    """A prose with statements put between its sentences and paragraphs, at all depths."""
    draw = random.Random(seed)
    ends = [match.end() for match in re.finditer(r"[.!?]\s+(?=[A-Z])", prose)]
    places = sorted(draw.sample(ends, len(told)))
    parts = [prose[a:b] for a, b in zip([0, *places], [*places, len(prose)], strict=True)]
    joined = [parts[0]]
    for text, part in zip(told, parts[1:], strict=True):
        # Half of them stand within a paragraph, half on their own.
        joined += [f"\n\n{text}\n\n" if draw.random() < 0.5 else f"{text} ", part]
    return "".join(joined)
