"""XML from strangers by defusedxml: no entities of its own, nothing from elsewhere."""

from __future__ import annotations

from typing import Any

from allmem_runtime.documents.parts import Refused


def parsed(data: bytes) -> Any:
    """The root element.

    Raises:
        Refused: it is no XML, or declares entities.
    """
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        return fromstring(data)
    except DefusedXmlException:
        raise Refused("declares entities, which are not read") from None
    except (ParseError, ValueError) as error:
        raise Refused(f"is damaged ({error})") from None


def local(element: Any) -> str:
    """The name of an element without its namespace; empty of a comment."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
