"""The accuracy benchmark: the class of each picture, and the counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import teacher_accuracy
from click.testing import CliRunner
from PIL import Image

from distinit.pipeline.teachers.null import COLOURS
from distinit.schemas.errors import DatasetError


def save_colours(root: Path, wrong: int = 0) -> None:
    colours = list(COLOURS.values())
    for index, colour in enumerate(colours):
        shown = colours[(index + 1) % 16] if index < wrong else colour
        Image.new("RGB", (5, 4), shown).save(root / f"n{index:08d}_colour.png")


@pytest.mark.parametrize(("wrong", "top1"), [(0, 1.0), (4, 0.75)])
def test_top1_and_top5_are_counted(wrong: int, top1: float, tmp_path: Path) -> None:
    save_colours(tmp_path, wrong)
    result = CliRunner().invoke(
        teacher_accuracy.main,
        ["--images", str(tmp_path), "--teacher", "null", "--json"],
    )
    assert result.exit_code == 0, result.output
    summary = json.loads(result.output)
    assert (summary["teacher"], summary["pictures"], summary["top1"]) == ("null", 16, top1)
    assert top1 <= summary["top5"] <= 1


def test_a_folder_of_other_classes_is_refused(tmp_path: Path) -> None:
    save_colours(tmp_path)
    with pytest.raises(DatasetError, match="1000 pictures"):
        teacher_accuracy.list_labelled(tmp_path, 1000)
