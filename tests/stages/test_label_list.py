"""``--dataset labels.csv``: a list of path,label,split is all that the stages need."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers.videos import make_video

from distinit.cli import main

VIDEOS = {
    "a": ("run", "train"),
    "b": ("walk", "train"),
    "c": ("run", "test"),
    "d": ("walk", "test"),
}
NETWORK = ("--student", "tiny_r2plus1d_10", "--device", "cpu", "--protocol", "vmz-1")
SMALL = ("--set", "clip.frames=2", "--set", "clip.crop=16", "--quiet", "--json")


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips; that of the last one is named by its absolute path, outside of the list's folder.

    There are no class folders, no official lists and no other option.
    """
    root = tmp_path_factory.mktemp("listed")
    lines = ["path,label,split"]
    for seed, (name, (label, subset)) in enumerate(VIDEOS.items()):
        place = root / ("elsewhere" if name == "d" else "mine/clips") / f"{name}.mp4"
        make_video(place, frames=6, seed=seed)
        path = place if name == "d" else place.relative_to(root / "mine")
        lines.append(f"{path},{label},{subset}")
    (root / "mine/labels.csv").write_text("\n".join([*lines, ""]))
    return root / "mine/labels.csv"


@pytest.fixture(scope="module")
def run(labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    training = ("--epochs", "1", "--batch-size", "2", "--clips-per-epoch", "2")
    call("finetune", "--dataset", labels, "--out", out, *NETWORK, *training, *SMALL)
    return out


def call(*words: str | Path) -> dict[str, Any]:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_finetune_trains_and_scores_the_listed_videos(run: Path, labels: Path) -> None:
    record = json.loads((run / "dataset.json").read_text())
    outside = str(labels.parents[1] / "elsewhere/d.mp4")
    assert record["kind"] == "csv"
    assert record["classes"] == ["run", "walk"]
    paths = [(video["path"], video["label"], video["subset"]) for video in record["videos"]]
    assert paths == [
        ("clips/a.mp4", 0, "train"),
        ("clips/b.mp4", 1, "train"),
        ("clips/c.mp4", 0, "test"),
        (outside, 1, "test"),
    ]
    result = json.loads((run / "result.json").read_text())
    assert (result["videos"], result["clips"], result["failed_videos"]) == (2, 2, [])
    assert (run / "frames/store.json").is_file()


def test_evaluate_builds_the_frames_of_the_listed_videos(
    run: Path, labels: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run, moved, ignore=shutil.ignore_patterns("frames"))
    scoring = ("--run", moved, "--device", "cpu", "--protocol", "vmz-1", "--quiet", "--json")
    result = call("evaluate", "--dataset", labels, *scoring)
    assert result == json.loads((run / "result.json").read_text())
    assert (moved / "frames/store.json").is_file()


def test_evaluate_reads_no_recorded_path_outside_of_a_folder(
    run: Path, labels: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run, moved, ignore=shutil.ignore_patterns("frames"))
    words = ["evaluate", "--dataset", str(labels.parent), "--run", str(moved), "--device", "cpu"]
    done = CliRunner().invoke(main, [*words, "--protocol", "vmz-1", "--quiet"])
    assert done.exit_code != 0
    assert "the run recorded a video outside of its dataset" in done.stderr
    assert "if you trained it with a CSV as --dataset, name that CSV" in done.stderr


def test_features_of_the_listed_videos(run: Path, labels: Path, tmp_path: Path) -> None:
    words = ("--run", run, "--frames", run / "frames", "--out", tmp_path / "features")
    sizes = ("--protocol", "vmz-1", "--device", "cpu", "--quiet", "--json")
    record = call("features", "--dataset", labels, *words, *sizes)["record"]
    assert (record["videos"], record["classes"]) == (4, ["run", "walk"])


def test_probe_of_the_listed_videos(run: Path, labels: Path, tmp_path: Path) -> None:
    few = ("--set", "linear.steps=2", "--set", "shots=[1]", "--set", "draws=1")
    words = ("--out", tmp_path / "probe", "--frames", run / "frames", *NETWORK, *few, *SMALL)
    result = call("probe", "--dataset", labels, *words)
    assert (result["dataset"], result["train_videos"], result["test_videos"]) == ("csv", 2, 2)
    assert result["rows"][0]["measures"]["knn"][0]["used_k"] == 2
