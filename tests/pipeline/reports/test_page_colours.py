"""The colours of the audit's page are far enough apart to be read (WCAG 2.1, 1.4.3 and 1.4.11)."""

from __future__ import annotations

import re
from importlib import resources

import pytest

TEXT_ON = [
    ("ink", "paper"),
    ("ink", "panel"),
    ("ink", "warn-panel"),
    ("muted", "paper"),
    ("muted", "panel"),
    ("muted", "warn-panel"),
    ("warn", "panel"),
    ("good", "paper"),
    ("accent", "paper"),
]


def colours(number: int) -> dict[str, str]:
    """The variables of one ``:root`` block: light (0), dark (1), or printed (2)."""
    style = resources.files("distinit.pipeline.reports") / "templates/audit.css"
    block = re.findall(r":root \{(.*?)\}", style.read_text(), re.DOTALL)[number]
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb``, 0 (black) to 1 (white)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """Contrast ratio, 1 to 21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_of_black_and_white_is_the_largest() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "paper"), TEXT_ON)
def test_texts_have_a_contrast_of_4_5(theme: int, text: str, paper: str) -> None:
    found = colours(theme)
    assert contrast(found[text], found[paper]) >= 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_lines_of_charts_have_a_contrast_of_3(theme: int) -> None:
    found = colours(theme)
    for line in ("accent", "ink", "warn"):
        assert contrast(found[line], found["panel"]) >= 3


def test_paper_has_the_light_colours() -> None:
    assert colours(2) == colours(0)
