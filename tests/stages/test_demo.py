"""The demo's result: the gain follows from the test videos, and the summary shows it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from helpers.demos import SmallDemo
from PIL import Image

from distinit.pipeline.reports.demo_picture import draw_demo
from distinit.schemas.run import EvaluationResult
from distinit.stages.demo import DemoResult
from distinit.stages.demo_digits import DigitData, gain_of


def result(correct: int, videos: int = 80, classes: int = 4) -> EvaluationResult:
    """``videos`` spread evenly over the classes; the first ``correct`` of them are right."""
    per_class = videos // classes
    confusion = np.zeros((classes, classes), int)
    for video in range(videos):
        true = video // per_class
        confusion[true, true if video < correct else (true + 1) % classes] += 1
    return EvaluationResult(
        protocol="vmz-10",
        videos=videos,
        clips=10 * videos,
        per_clip=50.0,
        top1=100 * correct / videos,
        top5=100.0,
        classes=classes,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        failed_videos=(),
    )


def test_the_gain_is_the_difference_in_top1_with_its_interval() -> None:
    gain = gain_of({"scratch": result(48), "distinit": result(56)}, 6)
    assert gain.top1 == {"scratch": 60.0, "distinit": 70.0}
    assert (gain.videos, gain.chance, gain.points) == (80, 25.0, 10.0)
    low, high = gain.interval["distinit"]
    assert low == pytest.approx(59.2, abs=0.1)
    assert high == pytest.approx(78.9, abs=0.1)
    assert gain.points_interval[0] < 0 < gain.points < gain.points_interval[1]
    clear = gain_of({"scratch": result(10), "distinit": result(56)}, 6)
    assert clear.points_interval[0] > 40


def test_a_video_that_could_not_be_decoded_counts_as_wrong() -> None:
    lost = result(56).model_copy(update={"videos": 90, "top1": 100 * 56 / 90})
    gain = gain_of({"scratch": lost, "distinit": lost}, 6)
    low, high = gain.interval["distinit"]
    assert low < 100 * 56 / 90 < high < 100 * 56 / 70


def test_the_summary_has_both_inits_chance_and_the_gain() -> None:
    results = {"scratch": result(10), "distinit": result(56)}
    shown = DemoResult(
        footage="demo/footage",
        picture="demo/demo.png",
        teacher_accuracy=94.5,
        results=results,
        gain=gain_of(results, 6),
        low_shot_gain=gain_of({"scratch": result(4), "distinit": result(20)}, 2),
        seconds={"footage": 1.0, "distill": 2.0},
    ).summary()
    lines = [line.split(maxsplit=1) for line in shown.splitlines()[3:8]]
    cells = {name: [cell for cell in re.split(r"  +", rest) if cell] for name, rest in lines}
    assert cells["scratch"] == ["5.0 (2.0 .. 12.2)", "12.5 (6.9 .. 21.5)"]
    assert cells["distinit"] == ["25.0 (16.8 .. 35.5)", "70.0 (59.2 .. 78.9)"]
    assert cells["(chance)"] == ["25.0", "25.0"]
    assert "+57.5 (+43.5 .. +68.0)" in shown
    assert "2 films per class       6 films per class" in shown
    assert "3 s in total: footage 1 s, distill 2 s" in shown


def test_the_picture_shows_the_bars_and_the_films(tmp_path: Path) -> None:
    Image.new("RGB", (300, 400), (10, 200, 10)).save(tmp_path / "sheet.png")
    gains = [gain_of({"scratch": result(10), "distinit": result(56)}, count) for count in (2, 6)]
    draw_demo(tmp_path / "demo.png", gains, tmp_path / "sheet.png")
    with Image.open(tmp_path / "demo.png") as image:
        pixels_HWC = np.asarray(image.convert("RGB")).astype(int)
    assert pixels_HWC.shape[1] > 2 * pixels_HWC.shape[0]
    green = (np.abs(pixels_HWC - (10, 200, 10)).max(axis=2) < 20).mean()
    blue = (np.abs(pixels_HWC - (31, 119, 180)).max(axis=2) < 20).mean()
    assert green > 0.1  # the contact sheet
    assert 0.02 < blue < 0.2  # the bar of distinit


def test_the_experiment_runs_from_films_to_the_gain(small_demo: SmallDemo) -> None:
    """With one film per class, and so little training that only the path is tested."""
    assert 0 <= small_demo.teacher_accuracy <= 100
    results = small_demo.results
    gain = gain_of(results, 6)
    assert (gain.films_per_class, gain.videos, gain.chance) == (6, 50, 2.0)
    assert gain.points == pytest.approx(results["distinit"].top1 - results["scratch"].top1)
    low, high = gain.points_interval
    assert low <= gain.points <= high


def test_the_low_shot_list_has_the_first_training_films_and_all_test_films(tmp_path: Path) -> None:
    data = DigitData(tmp_path)
    for name in ("train/0_up/a", "train/0_up/b", "train/0_up/c", "train/1_up/d", "test/0_up/e"):
        path = data.footage.labelled / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert data.low_shot_list(2).read_text().splitlines() == [
        "path,label,split",
        "train/0_up/a.mp4,0_up,train",
        "train/0_up/b.mp4,0_up,train",
        "train/1_up/d.mp4,1_up,train",
        "test/0_up/e.mp4,0_up,test",
    ]
