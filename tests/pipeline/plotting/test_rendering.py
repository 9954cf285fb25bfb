"""Rendering: the same bytes for the same figure, no dates, and short labels."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from matplotlib.figure import Figure
from PIL import Image

from distinit.pipeline.plotting.rendering import figure_pdf, figure_png, short_label


def drawn() -> Figure:
    figure = Figure(figsize=(2, 1), dpi=100)
    axes = figure.add_subplot()
    axes.bar([0, 1], [1, 2])
    axes.set_title("猫 €", parse_math=False)
    return figure


def test_the_same_figure_gives_the_same_bytes_in_every_process() -> None:
    code = (
        "import sys, hashlib\n"
        "from matplotlib.figure import Figure\n"
        "from distinit.pipeline.plotting.rendering import figure_pdf, figure_png\n"
        "figure = Figure(figsize=(2, 1), dpi=100)\n"
        "axes = figure.add_subplot()\n"
        "axes.bar([0, 1], [1, 2])\n"
        "axes.set_title('\\u732b \\u20ac', parse_math=False)\n"
        "sys.stdout.buffer.write(figure_png(figure) + figure_pdf(figure))\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo"}
    other = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True
    )
    figure = drawn()
    assert other.stdout == figure_png(figure) + figure_pdf(figure)


def test_files_have_the_size_of_the_figure_and_no_dates() -> None:
    figure = drawn()
    png = Image.open(io.BytesIO(figure_png(figure)))
    assert (png.size, png.format, "Software" in png.info) == ((200, 100), "PNG", False)
    pdf = figure_pdf(figure)
    assert pdf.startswith(b"%PDF-1.4")
    assert b"/MediaBox [0 0 144 72]" in pdf.replace(b"[ ", b"[").replace(b" ]", b"]")
    assert b"Date" not in pdf
    assert b"/Subtype /Type3" not in pdf


@pytest.mark.parametrize(
    ("name", "limit", "shown"),
    [
        ("tabby cat", 20, "tabby cat"),
        ("a\nb\x00\u202e", 20, "a?b??"),
        ("x" * 40, 34, "x" * 17 + "…" + "x" * 16),
        ("猫" * 5, 10, "猫" * 5),
        ("猫" * 6, 10, "猫猫…猫猫"),
        ("garbage_truck_zoom_in", 16, "garbage_…zoom_in"),
    ],
)
def test_labels_are_one_line_of_a_limited_width(name: str, limit: int, shown: str) -> None:
    assert short_label(name, limit) == shown
