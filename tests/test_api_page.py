"""The examples of docs/api.md run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.pages import run_page
from helpers.videos import make_video

import distinit

PAGE = Path(__file__).parents[1] / "docs/api.md"


def test_the_examples_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("abc"):
        make_video(tmp_path / f"clips/{name}.mp4", frames=24, seed=seed)
    assert run_page(PAGE) == PAGE.read_text().count(">>> ")


def test_an_example_with_another_output_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\n>>> 1 + 1\n3\n\n```\n")
    with pytest.raises(AssertionError, match="Got:\n    2"):
        run_page(page)


@pytest.mark.parametrize("name", sorted(set(distinit.__all__) - {"__version__"}))
def test_the_page_or_the_types_on_it_name_everything_public(name: str) -> None:
    returned = {"TeacherTargets", "TrainedStudent", "VideoFeatures", "VideoTargets"}
    assert name in returned or re.search(rf"\b{name}\b", PAGE.read_text())
