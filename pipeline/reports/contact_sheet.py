"""Contact sheets: small pictures in a grid, each with a caption."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from distinit.schemas.wording import one_line

__all__ = ["CELL_WIDTH", "SheetPicture", "contact_sheet", "sheet_size"]

CELL_WIDTH = 184  # pixels
PICTURE_HEIGHT = 138
LINE_HEIGHT = 18
GAP = 10
COLUMNS = 6
FONT_SIZE = 14
PAPER, INK = (255, 255, 255), (29, 36, 48)


@dataclass(frozen=True, slots=True)
class SheetPicture:
    """One picture of a contact sheet."""

    pixels_HWC: np.ndarray
    """uint8 RGB [H, W, 3]."""
    caption: tuple[str, ...]
    """Lines of text below the picture."""


def sheet_size(count: int, lines: int) -> tuple[int, int]:
    """(width, height) in pixels of a sheet of ``count`` pictures with ``lines`` caption lines."""
    columns = min(COLUMNS, max(1, count))
    rows = -(-count // columns)
    cell_height = PICTURE_HEIGHT + lines * LINE_HEIGHT
    return GAP + columns * (CELL_WIDTH + GAP), GAP + rows * (cell_height + GAP)


def contact_sheet(pictures: Sequence[SheetPicture]) -> bytes:
    """PNG bytes of a sheet with the pictures in reading order, scaled with their aspect ratio."""
    lines = max((len(picture.caption) for picture in pictures), default=0)
    sheet = Image.new("RGB", sheet_size(len(pictures), lines), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=FONT_SIZE)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, COLUMNS)
        left = GAP + column * (CELL_WIDTH + GAP)
        top = GAP + row * (PICTURE_HEIGHT + lines * LINE_HEIGHT + GAP)
        _paste(sheet, picture.pixels_HWC, left, top)
        for number, line in enumerate(picture.caption):
            y = top + PICTURE_HEIGHT + 2 + number * LINE_HEIGHT
            draw.text((left, y), _fitting(one_line(line), font), INK, font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _paste(sheet: Image.Image, pixels_HWC: np.ndarray, left: int, top: int) -> None:
    """Paste the picture, centred, into the cell whose corner is (left, top)."""
    picture = Image.fromarray(pixels_HWC)
    scale = min(CELL_WIDTH / picture.width, PICTURE_HEIGHT / picture.height)
    width, height = (max(1, round(edge * scale)) for edge in picture.size)
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    sheet.paste(picture, (left + (CELL_WIDTH - width) // 2, top + (PICTURE_HEIGHT - height) // 2))


def _fitting(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The line, shortened to the width of a cell."""
    line = "".join(letter if letter.isprintable() else "?" for letter in line[:200])
    if font.getlength(line) <= CELL_WIDTH:
        return line
    while line and font.getlength(line + "…") > CELL_WIDTH:
        line = line[:-1]
    return line + "…"
