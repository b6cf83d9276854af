"""Synthetic tasks: many facts, facts hidden in prose, chains of copies, frequent words.

Each draws its values anew, so no answer can be known without reading the document.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

from allmem_exporters.finetune.data import wordings
from allmem_exporters.finetune.data.exercises import (
    HIDDEN,
    HIDDEN_IN_ORDER,
    Exercise,
    distinct,
)

Haystack = Iterator[str]


def keyvalue(random: Random, turns: int) -> Exercise:
    """A document that is nothing but facts of one form; a few of them are asked for."""
    key_kind, value_kind = _kinds(random)
    statement: str = random.choice(wordings.RECORDS + wordings.STATEMENTS)
    thing = random.choice(wordings.THINGS)
    reverse = random.random() < 0.25
    choices: tuple[str, ...]
    keys: set[str] = set()
    values: set[str] = set()

    def fact() -> tuple[str, str]:
        (key,) = distinct(lambda: _draw(key_kind, random), 1, keys)
        (value,) = distinct(lambda: _draw(value_kind, random), 1, values)
        return key, value

    def filler() -> Iterator[str]:
        while True:
            key, value = fact()
            yield statement.format(key=key, value=value, thing=thing)

    asked = [fact() for _ in range(turns)]
    if statement in wordings.RECORDS:
        choices = wordings.REVERSED_RECORD_QUESTIONS if reverse else wordings.RECORD_QUESTIONS
    else:
        choices = wordings.REVERSED_QUESTIONS if reverse else wordings.QUESTIONS
    wording = random.choice(choices)
    return Exercise(
        kind="keyvalue",
        source=f"{key_kind} to {value_kind}",
        facts=[statement.format(key=k, value=v, thing=thing) for k, v in asked],
        questions=[
            (wording.format(key=k, value=v, thing=thing), k if reverse else v) for k, v in asked
        ],
        filler=filler(),
        joint="\n",
    )


def needle(random: Random, turns: int, haystack: Haystack, source: str) -> Exercise:
    """Facts hidden in prose, beside others of the same form that are not asked for."""
    key_kind, value_kind = _kinds(random)
    keys: set[str] = set()
    values: set[str] = set()
    facts: list[str] = []
    questions: list[tuple[str, str]] = []
    thing = random.choice(wordings.THINGS)
    statement = random.choice(wordings.STATEMENTS)
    varied = random.random() < 0.5
    for number in range(turns + random.randrange(turns + 1)):
        if varied:
            thing = random.choice(wordings.THINGS)
            statement = random.choice(wordings.STATEMENTS)
        several = random.choice((2, 3, 4)) if random.random() < 0.15 else 1
        (key,) = distinct(lambda: _draw(key_kind, random), 1, keys)
        own = distinct(lambda: _draw(value_kind, random), several, values)
        facts += [statement.format(key=key, value=value, thing=thing) for value in own]
        if number < turns:
            choices = wordings.QUESTIONS if several == 1 else wordings.SEVERAL_QUESTIONS
            question = random.choice(choices).format(key=key, thing=thing)
            questions.append((question, ", ".join(own)))
    random.shuffle(questions)
    return Exercise("needle", source, facts, questions, haystack, HIDDEN)


def chains(random: Random, turns: int, haystack: Haystack, source: str) -> Exercise:
    """Values put somewhere and copied on, step by step, in the order in which it is told."""
    names: set[str] = set()
    values: set[str] = set()
    form = random.randrange(len(wordings.STARTS))
    start, step = wordings.STARTS[form], wordings.STEPS[form]
    told: list[list[str]] = []
    questions = []
    for _ in range(max(2, turns // 2)):
        (value,) = distinct(lambda: str(random.randrange(10_000, 100_000)), 1, values)
        hops = distinct(lambda: "".join(random.choices("ABCDEFGHKLMNPRSTUVWXZ", k=4)),
                        random.choice((2, 3, 4)), names)  # fmt: skip
        told.append(
            [start.format(name=hops[0], value=value)]
            + [step.format(name=b, before=a) for a, b in zip(hops, hops[1:], strict=False)]
        )
        asked = random.choice(wordings.CHAIN_LISTS).format(value=value)
        questions.append((asked, ", ".join(hops)))
        last = random.choice(hops[1:])
        questions.append((random.choice(wordings.CHAIN_QUESTIONS).format(name=last), value))
    facts = _merged(told, random)
    random.shuffle(questions)
    return Exercise("chains", source, facts, questions[:turns], haystack, HIDDEN_IN_ORDER)


def common(random: Random, budget: int, count: Callable[[str], int]) -> Exercise:
    """A list of words of which a few come up far more often.

    Args:
        random: draws everything.
        budget: tokens of the list.
        count: tokens of a text.
    """
    number = random.choice((3, 5, 10))
    words = distinct(lambda: _draw("words", random), number + budget // 20, set())
    often, rare = words[:number], words[number:]
    called = often * max(4, budget // (12 * number)) + rare * 3
    random.shuffle(called)
    form = random.choice(("{place}. {word}", "{word}", "{word},"))
    joint = " " if form == "{word}," else "\n"
    lines: list[str] = []
    heard: Counter[str] = Counter()
    for place, word in enumerate(called, start=1):
        line = form.format(place=place, word=word)
        budget -= count(joint + line)
        if budget < 0:
            break
        lines.append(line)
        heard[word] += 1
    most = sorted(often, key=lambda word: -heard[word])
    question = random.choice(wordings.COMMON_QUESTIONS).format(number=number)
    return Exercise(
        kind="common",
        source=f"{number} words",
        facts=[joint.join(lines)],
        questions=[(question, ", ".join(most))],
        filler=iter(()),
        lead=random.choice(wordings.COMMON_LEADS),
    )


def _kinds(random: Random) -> tuple[str, str]:
    key = random.choices(("people", "words", "uuids"), (5, 4, 1))[0]
    value = random.choices(("numbers", "words", "uuids", "dates"), (5, 3, 1, 1))[0]
    return key, value


def _draw(kind: str, random: Random) -> str:
    if kind == "people":
        return f"{random.choice(wordings.FIRST_NAMES)} {random.choice(wordings.LAST_NAMES)}"
    if kind == "words":
        return f"{random.choice(wordings.ADJECTIVES)} {random.choice(wordings.NOUNS)}"
    if kind == "uuids":
        return str(uuid.UUID(int=random.getrandbits(128), version=4))
    if kind == "dates":
        month = random.choice(
            ["January", "March", "April", "May", "June", "July", "August", "October"]
        )
        return f"{random.randrange(1, 29)} {month} {random.randrange(1500, 2030)}"
    return str(random.randrange(10 ** random.choice((3, 4, 5, 6)), 10**7))


def _merged(chains: list[list[str]], random: Random) -> list[str]:
    """All steps in one order that keeps each chain's own."""
    order = [number for number, chain in enumerate(chains) for _ in chain]
    random.shuffle(order)
    rest = [iter(chain) for chain in chains]
    return [next(rest[number]) for number in order]
