"""EPUB books: their pages in the order of reading, under the chapters of their contents."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from allmem_runtime.documents.html import decoded, page_parts
from allmem_runtime.documents.markup import local, parsed
from allmem_runtime.documents.members import unpacked
from allmem_runtime.documents.parts import Budget, Note, Part, Refused


def extract(archive: zipfile.ZipFile, budget: Budget) -> Iterator[Part]:
    """The book in an opened archive."""
    container = parsed(unpacked(archive, "META-INF/container.xml", budget))
    package = next((e.get("full-path") for e in container.iter() if local(e) == "rootfile"), None)
    if not package:
        raise Refused("is damaged: it does not say where its book is")
    names = set(archive.namelist())
    if "META-INF/encryption.xml" in names and _is_locked(
        parsed(unpacked(archive, "META-INF/encryption.xml", budget))
    ):
        raise Refused("is encrypted", "Read it with the program it was bought for.")
    for path in _pages(parsed(unpacked(archive, package, budget)), posixpath.dirname(package)):
        if path not in names:
            yield Note(f"{path} is missing")
            continue
        try:
            page = decoded(unpacked(archive, path, budget))
        except Refused as error:
            if error.ends_all:
                raise
            yield Note(f"{error.why.removeprefix('is damaged: ')}; left out")
            continue
        yield from page_parts(page, whole=True)


def _pages(package: Any, folder: str) -> Iterator[str]:
    """Names of the pages in the archive, in the order of reading."""
    files = {}
    for item in package.iter():
        if local(item) == "item" and "html" in item.get("media-type", ""):
            files[item.get("id")] = (item.get("href", ""), item.get("properties") or "")
    for reference in package.iter():
        if local(reference) == "itemref" and reference.get("idref") in files:
            link, properties = files[reference.get("idref")]
            if "nav" not in properties.split():
                yield posixpath.normpath(posixpath.join(folder, unquote(link.partition("#")[0])))


def _is_locked(encryption: Any) -> bool:
    """Whether more than fonts is encrypted."""
    uris = [e.get("URI", "") for e in encryption.iter() if local(e) == "CipherReference"]
    return any(not uri.lower().endswith((".ttf", ".otf", ".woff", ".woff2")) for uri in uris)
