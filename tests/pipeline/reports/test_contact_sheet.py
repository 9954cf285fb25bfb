"""Contact sheets: exact sizes, pictures that keep their aspect ratio, captions inside cells."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from distinit.pipeline.reports.contact_sheet import (
    CELL_WIDTH,
    SheetPicture,
    contact_sheet,
    sheet_size,
)

RED = np.full((128, 171, 3), (255, 0, 0), np.uint8)


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize(
    ("count", "lines", "size"),
    [
        (1, 0, (10 + 194, 10 + 148)),
        (5, 2, (10 + 5 * 194, 10 + 184)),
        (6, 2, (10 + 6 * 194, 10 + 184)),
        (7, 2, (10 + 6 * 194, 10 + 2 * 184)),
        (24, 2, (10 + 6 * 194, 10 + 4 * 184)),
    ],
)
def test_the_size_follows_the_number_of_pictures(
    count: int, lines: int, size: tuple[int, int]
) -> None:
    assert sheet_size(count, lines) == size
    sheet = opened(contact_sheet([SheetPicture(RED, ("caption",) * lines)] * count))
    assert sheet.shape == (size[1], size[0], 3)


def test_a_frame_fills_its_cell_and_only_its_cell() -> None:
    sheet = opened(contact_sheet([SheetPicture(RED, ())]))
    red = (sheet == (255, 0, 0)).all(axis=2)
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (10, 147, 10, 193)
    assert red[10:148, 10:194].all()


def test_tall_pictures_keep_their_aspect_ratio() -> None:
    tall = np.full((200, 100, 3), (0, 0, 255), np.uint8)
    blue = (opened(contact_sheet([SheetPicture(tall, ())])) == (0, 0, 255)).all(axis=2)
    assert (blue.any(axis=1).sum(), blue.any(axis=0).sum()) == (138, 69)


def test_long_captions_end_where_the_cell_ends() -> None:
    pictures = [SheetPicture(RED, ("w" * 400,)), SheetPicture(RED, ("\x00\u202e<b>",))]
    sheet = opened(contact_sheet(pictures))
    gap = sheet[148:164, 10 + CELL_WIDTH + 1 : 10 + CELL_WIDTH + 9]
    assert (gap == 255).all()
    assert (sheet[148:164, 10 : 10 + CELL_WIDTH] < 128).any()  # the caption is visible
