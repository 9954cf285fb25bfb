"""The accuracy check: which picture has which class, and what is counted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from distinit.pipeline.teachers.null import COLOURS
from distinit.schemas.errors import DatasetError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "teacher_accuracy", raising=False)
    import teacher_accuracy

    return teacher_accuracy


def save_colours(root: Path, wrong: int = 0) -> None:
    colours = list(COLOURS.values())
    for index, colour in enumerate(colours):
        shown = colours[(index + 1) % 16] if index < wrong else colour
        Image.new("RGB", (5, 4), shown).save(root / f"n{index:08d}_colour.png")


@pytest.mark.parametrize(("wrong", "top1"), [(0, 1.0), (4, 0.75)])
def test_counts(accuracy: object, wrong: int, top1: float, tmp_path: Path) -> None:
    save_colours(tmp_path, wrong)
    result = CliRunner().invoke(
        accuracy.main,  # type: ignore[attr-defined]
        ["--images", str(tmp_path), "--teacher", "null", "--json"],
    )
    assert result.exit_code == 0, result.output
    answer = json.loads(result.output)
    assert (answer["teacher"], answer["pictures"], answer["top1"]) == ("null", 16, top1)
    assert top1 <= answer["top5"] <= 1


def test_a_folder_of_other_classes_is_refused(accuracy: object, tmp_path: Path) -> None:
    save_colours(tmp_path)
    with pytest.raises(DatasetError, match="1000 pictures"):
        accuracy.list_labelled(tmp_path, 1000)  # type: ignore[attr-defined]
