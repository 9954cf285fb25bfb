"""Checks figures as they are drawn."""

from __future__ import annotations

import warnings
from typing import Any
from unittest.mock import patch

from matplotlib.figure import Figure
from matplotlib.text import Text

_TOLERANCE_PIXELS = 1


def cut_texts(figure: Figure) -> list[str]:
    """The texts of a figure that extend over its edge; tick labels that are not drawn do not count.

    The figure is drawn.
    """
    drawn: list[Text] = []
    draw = Text.draw

    def record(text: Text, renderer: Any, *args: Any, **kwargs: Any) -> None:
        drawn.append(text)
        draw(text, renderer, *args, **kwargs)

    with warnings.catch_warnings(), patch.object(Text, "draw", record):
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.draw_without_rendering()
        return [text.get_text() for text in drawn if text.get_text() and not _inside(text, figure)]


def _inside(text: Text, figure: Figure) -> bool:
    box = text.get_window_extent()
    return bool(
        box.x0 >= -_TOLERANCE_PIXELS
        and box.y0 >= -_TOLERANCE_PIXELS
        and box.x1 <= figure.bbox.x1 + _TOLERANCE_PIXELS
        and box.y1 <= figure.bbox.y1 + _TOLERANCE_PIXELS
    )
