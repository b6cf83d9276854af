"""A model's chat template: parts of templates put together, or its text spoiled."""

from __future__ import annotations

from pathlib import Path
from random import Random

from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.formats._toy import load_toy, sealed, write_toy
from hostile.fuzz.mutate_bytes import mutated_bytes

from allmem_runtime import spec
from allmem_runtime.files.package import open_package
from allmem_runtime.loaded_model import LoadedModel

_PARTS = (
    "{{ messages | tojson }}", "{{ messages[0].content | upper }}", "{% for i in range(9) %}",
    "{% endfor %}", "{% if x is defined %}", "{% endif %}", "{% set a = 'x' * 99999 %}", "{{ a }}",
    "{% set a = [a, a] %}", "{{ a ~ a }}", "{{ ''.__class__ }}", "{{ a | join(',') }}",
    "{{ raise_exception('no') }}", "{{ strftime_now('%Y') }}", "{{ 9 ** 9 ** 9 }}", "{{ 1 / 0 }}",
    "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}", "{{ messages[99].x.y }}", "{{ 1e999 }}",
    "{{ a.format(9) }}", "{{ [1, 'a'] | sort }}", "{{ namespace(a=1).a }}", "{% generation %}",
    "{% endgeneration %}", "{% break %}", "{% include 'x' %}", "{% import 'x' as y %}",
    "{{ a[::-1] }}",
    "{{ '%999999999d' % 1 }}", "{{ range(10 ** 9) | sum }}", "{# #}", "{%- raw %}", "{% endraw %}",
    "{{ messages | map(attribute='content') | list }}", "{{ dict(a=1) | items | list }}", "{{ ",
    "{{ caller() }}", "{{ loop.index }}", "{{ self }}", "{{ cycler(1, 2).next() }}",
    "{{ joiner() }}",
)  # fmt: skip


def _mutate(files: Files, draw: Random) -> Files:
    data = files[spec.CHAT_TEMPLATE_FILE]
    if draw.random() < 0.3:
        data = mutated_bytes(data, draw)
    for _ in range(draw.randrange(4)):
        at = draw.randrange(len(data) + 1)
        data = data[:at] + draw.choice(_PARTS).encode() + data[at:]
    return sealed(files, {spec.CHAT_TEMPLATE_FILE: data})


def _reader(good: Path) -> Read:
    engine = load_toy(good).engine

    def read(folder: Path) -> None:
        model = LoadedModel(open_package(folder), engine)
        model.chat.opening("Be brief.")
        model.chat.between()

    return read


FORMAT = Format("template", write_toy, _mutate, _reader)
