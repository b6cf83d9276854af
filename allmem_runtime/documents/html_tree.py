"""The elements of a page, in their order and in a time that grows with their number alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def elements(root: Any, names: Collection[str]) -> list[Any]:
    """The elements of some names below another one, which Resiliparse lists in quadratic time.

    Args:
        root: an element.
        names: in small letters.
    """
    found = []
    depth, element = 1, root.first_element_child
    while element is not None:
        if element.tag in names:
            found.append(element)
        after = element.first_element_child
        if after is not None:
            depth += 1
        else:
            after = element.next_element_sibling
            while after is None and depth > 1:
                depth -= 1
                element = element.parent_element
                after = element.next_element_sibling
        element = after
    return found
