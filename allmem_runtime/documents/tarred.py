"""Archives by tar: their files, read in the order they lie there."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from allmem_runtime.documents.anything import inner
from allmem_runtime.documents.members import is_hidden, reason_against
from allmem_runtime.documents.parts import Budget, Note, Part, Refused


def extract(file: BinaryIO, name: str, budget: Budget, depth: int) -> Iterator[Part]:
    """The files of an archive; see ``Extract``."""
    try:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                if member.isdir() or is_hidden(member.name):
                    continue
                if why := reason_against(member.name, member.size, not member.isfile()):
                    yield Note(f"{member.name} {why}; left out")
                    continue
                budget.take(member.size)
                held = archive.extractfile(member)
                if held is not None:
                    yield from inner(held.read(), member.name, budget, depth + 1)
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
    except tarfile.TarError as error:
        raise Refused(f"is damaged, or no whole archive ({error})") from None
