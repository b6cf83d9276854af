"""Skips what needs the operator library, and says why there is none."""

from __future__ import annotations

import pytest

from allmem_ops.library import LibraryError, check_library


def library_problem() -> str:
    """Why there is no operator library that can be used; empty where there is one."""
    try:
        check_library()
    except LibraryError as error:
        return str(error)
    return ""


needs_library = pytest.mark.skipif(bool(library_problem()), reason=library_problem())
