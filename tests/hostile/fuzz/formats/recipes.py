"""TOML files: what training data is made of, the settings of a run, where a model comes from."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

from hostile.fuzz.format import Files, Format, Read
from hostile.fuzz.mutate_bytes import mutated_bytes

from allmem_exporters.finetune.data.recipe import read_recipe
from allmem_exporters.finetune.settings import read_settings
from models import fetch

_MODELS = Path(fetch.__file__).parent / "smollm2-135m"
DATA, SETTINGS, SOURCE = "data.toml", "train.toml", "model/source.toml"
_VALUES = (
    "0", "-1", "1.5", "nan", "inf", "-inf", "1e400", "9" * 400, "true", '""', "'x'", '"\\ud800"',
    "[]", "[[]]", "[1, 'x']", "{}", "{a = 1}", "1979-05-27", "07:32:00", '"""', "[" * 3000, "0x7f",
    "[nan, nan]", "[16, 1e300]", "'../../x'", '"/dev/zero"', '"\\u0000"', "['x', 'x']", "[1, 2, 3]",
    "'" + "x" * 6000 + "'", "18446744073709551616", "a.b = 1", "[0, 0]",
)  # fmt: skip


def _make(folder: Path) -> None:
    for name in (DATA, SETTINGS, SOURCE):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((_MODELS / Path(name).name).read_bytes())


def _mutate(files: Files, draw: Random) -> Files:
    name = draw.choice((DATA, DATA, SETTINGS, SETTINGS, SOURCE))
    data = files[name]
    if draw.random() < 0.2:
        return {name: mutated_bytes(data, draw)}
    lines = data.decode("utf-8", "replace").splitlines() or [""]
    for _ in range(draw.choice((1, 1, 2, 3))):
        at, kind = draw.randrange(len(lines)), draw.random()
        if kind < 0.7:
            lines[at] = re.sub(r"=.*", lambda _: "= " + draw.choice(_VALUES), lines[at], count=1)
        elif kind < 0.8:
            lines[at] = ""
        elif kind < 0.9:
            lines.insert(draw.randrange(len(lines)), lines[at])
        else:
            lines.insert(
                at, draw.choice(("[[source]]", "[source]", "[draws]", "x = 1", "seed = 1"))
            )
    return {name: "\n".join(lines).encode("utf-8", "surrogatepass")}


def _reader(good: Path) -> Read:
    def read(folder: Path) -> None:
        read_recipe(folder / DATA)
        read_settings(folder / SETTINGS).as_dict()

    return read


FORMAT = Format("recipes", _make, _mutate, _reader)
