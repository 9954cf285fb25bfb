"""Renders matplotlib figures to bytes: the same figure always gives the same bytes."""

from __future__ import annotations

import io
import unicodedata
import warnings
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["figure_pdf", "figure_png", "short_label"]

_PDF_METADATA = {"Creator": None, "Producer": None, "CreationDate": None}
_PDF_IMAGE_DPI = 300
_TRUETYPE = 42  # publishers refuse fonts of Type 3, matplotlib's default


def short_label(name: str, limit: int) -> str:
    """The name as one line of at most the width of ``limit`` Latin letters; wide letters count two.

    Too long a name loses its middle: names of classes and runs often differ at their end.
    """
    plain = "".join(letter if letter.isprintable() else "?" for letter in name)
    if _width(plain) <= limit:
        return plain
    first, last = plain[: limit // 2], plain[-max(1, limit // 2) :]
    while _width(first) > limit // 2:
        first = first[:-1]
    while _width(last) > limit - 1 - limit // 2:
        last = last[1:]
    return f"{first}…{last}"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def figure_png(figure: Figure) -> bytes:
    """PNG bytes at the resolution of the figure."""
    return _rendered(figure, "png", metadata={"Software": None})


def figure_pdf(figure: Figure) -> bytes:
    """PDF bytes, with embedded fonts and without a date."""
    with mpl.rc_context({"pdf.fonttype": _TRUETYPE}):
        return _rendered(figure, "pdf", metadata=_PDF_METADATA, dpi=_PDF_IMAGE_DPI)


def _rendered(figure: Figure, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Letters that the font does not have are drawn as boxes. That is acceptable.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(buffer, format=file_format, **options)
    return buffer.getvalue()
