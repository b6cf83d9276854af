"""What people wrote into a PDF: its form's fields, and remarks on its pages."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

_MOST = 10_000
"""Fields and remarks of one page that are looked at."""
_LONGEST = 1 << 20
"""Bytes of one value."""


class Fields:
    """The fields and remarks of a document."""

    def __init__(self) -> None:
        self._held: dict[int, list[str]] = {}

    def environment(self, document: Any) -> Any:
        """What PDFium reads the fields of a document with; None of one without a form.

        No script of it is run: the library is built without what runs them.
        """
        if document.get_formtype():
            document.init_forms()
        return document.formenv

    def look(self, number: int, page: Any, environment: Any) -> None:
        """Look at a page while it is open; what is found is held until it is asked for."""
        if found := list(dict.fromkeys(_found(page, environment))):
            self._held[number] = found

    def of(self, number: int) -> list[str]:
        """A line for each field that was filled in, and for each remark, of a page; once."""
        return self._held.pop(number, [])


def _found(page: Any, environment: Any) -> Iterator[str]:
    import pypdfium2.raw as pdfium

    remarks = (pdfium.FPDF_ANNOT_TEXT, pdfium.FPDF_ANNOT_FREETEXT,
               pdfium.FPDF_ANNOT_HIGHLIGHT, pdfium.FPDF_ANNOT_UNDERLINE,
               pdfium.FPDF_ANNOT_STRIKEOUT)  # fmt: skip
    for index in range(min(pdfium.FPDFPage_GetAnnotCount(page), _MOST)):
        annotation = pdfium.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        try:
            kind = pdfium.FPDFAnnot_GetSubtype(annotation)
            if kind == pdfium.FPDF_ANNOT_WIDGET and environment:
                yield _field(environment, annotation)
            elif kind in remarks:
                said = _told(pdfium.FPDFAnnot_GetStringValue, annotation, b"Contents")
                yield f"Remark: {said}" if said else ""
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)


def _field(form: Any, annotation: Any) -> str:
    """A field with its value; empty where nothing was filled in."""
    import pypdfium2.raw as pdfium

    kind = pdfium.FPDFAnnot_GetFormFieldType(form, annotation)
    if kind in (pdfium.FPDF_FORMFIELD_PUSHBUTTON, pdfium.FPDF_FORMFIELD_SIGNATURE):
        return ""
    if kind in (pdfium.FPDF_FORMFIELD_CHECKBOX, pdfium.FPDF_FORMFIELD_RADIOBUTTON):
        if not pdfium.FPDFAnnot_IsChecked(form, annotation):
            return ""
        value = "yes" if kind == pdfium.FPDF_FORMFIELD_CHECKBOX else ""
        value = value or _told(pdfium.FPDFAnnot_GetFormFieldExportValue, form, annotation)
    else:
        value = _told(pdfium.FPDFAnnot_GetFormFieldValue, form, annotation)
    name = _told(pdfium.FPDFAnnot_GetFormFieldAlternateName, form, annotation)
    name = name or _told(pdfium.FPDFAnnot_GetFormFieldName, form, annotation)
    return f"{name or 'Field'}: {value}" if value else ""


def _told(function: Callable[..., int], *about: Any) -> str:
    """What a function of PDFium writes in UTF-16, on one line."""
    size = function(*about, None, 0)
    if not 2 < size <= _LONGEST:
        return ""
    buffer = ctypes.create_string_buffer(size)
    function(*about, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort)), size)
    return " ".join(buffer.raw[: size - 2].decode("utf-16-le", "replace").split())
