"""Signatures of records that this user's programs wrote: nobody else's are believed.

What is prepared from a model lies beside it and is handed to native code as it is, so a copy that
came with a download must not pass for one that was made here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from typing import Any

from allmem_runtime.errors import StorageError
from allmem_runtime.files.atomic import PRIVATE
from allmem_runtime.files.temporary import temporary_file
from allmem_runtime.files.user_cache import VARIABLE, cache_folder

_KEY_FILE = "key"
_KEY_BYTES = 32


def sign(record: dict[str, Any], *, make_key: bool = False) -> str | None:
    """The signature of a record: an HMAC-SHA-256 under a key in the user's cache folder.

    Args:
        record: values that JSON knows.
        make_key: make a key if there is none.

    Returns:
        Hexadecimal digits; None if there is no key, so that nothing was ever signed here.

    Raises:
        StorageError: a key is to be made and cannot be kept.
    """
    key = _read_key()
    if key is None:
        if not make_key:
            return None
        key = _make_key()
    text = json.dumps(record, sort_keys=True, ensure_ascii=True)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def is_signed(record: dict[str, Any], given: object) -> bool:
    """Whether a signature is that of a record."""
    expected = sign(record)
    if expected is None or not isinstance(given, str) or not given.isascii():
        return False
    return hmac.compare_digest(expected, given)


def _read_key() -> bytes | None:
    try:
        with (cache_folder() / _KEY_FILE).open("rb") as file:
            key = file.read(_KEY_BYTES + 1)
    except OSError:
        return None
    return key if len(key) == _KEY_BYTES else None


def _make_key() -> bytes:
    path = cache_folder() / _KEY_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path, PRIVATE) as (new, file):
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
            try:
                os.link(new, path)  # unlike a rename it never replaces the key of another process
            except OSError:
                if _read_key() is None:
                    os.replace(new, path)
    except OSError as error:
        raise StorageError(
            f"No key could be kept in {path.parent}: {error.strerror}.",
            f"Name another folder by the environment variable {VARIABLE}.",
        ) from None
    key = _read_key()
    if key is None:
        raise StorageError(f"{path} cannot be read back.", "Check the disk and the folder.")
    return key
