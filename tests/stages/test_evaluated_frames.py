"""`evaluate --dataset`: the test videos of a run in another place, and what must be the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers.videos import make_video

from distinit.cli import main
from distinit.pipeline.frames.reader import FrameStore
from distinit.schemas.dataset import DatasetRecord
from distinit.schemas.errors import ConfigError, DatasetError, DistInitError
from distinit.schemas.finetune import EvaluateConfig, FinetuneConfig
from distinit.stages.evaluate import evaluate
from distinit.stages.finetune import finetune

ROWS = (("a/1", "run", "train"), ("b/2", "walk", "train"), ("a/3", "run", "test"))
ROWS += (("b/4", "walk", "test"),)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``folders`` and ``lists``, datasets of the same videos, with runs ``F`` and ``L`` on them."""
    root = tmp_path_factory.mktemp("trained")
    for number, (place, _, subset) in enumerate(ROWS):
        video = make_video(root / "lists" / f"{place}.mp4", frames=6, seed=number)
        target = root / "folders" / subset / f"{place}.mp4"
        target.parent.mkdir(parents=True)
        shutil.copy(video, target)
    write_csv(root / "lists.csv")
    finetune(configured(root / "F", root=str(root / "folders")))
    lists = {"root": str(root / "lists"), "splits": str(root / "lists.csv")}
    finetune(configured(root / "L", **lists))
    return root


def write_csv(path: Path, *rows: tuple[str, str, str]) -> None:
    lines = [f"{place}.mp4,{label},{subset}" for place, label, subset in rows or ROWS]
    path.write_text("\n".join(["path,label,split", *lines, ""]))


def configured(out: Path, **dataset: Any) -> FinetuneConfig:
    values = {
        "dataset": dataset,
        "out": str(out),
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 2, "crop": 16},
        "optimizer": {"epochs": 1, "clips_per_epoch": 4},
        "runtime": {"batch_size": 4, "device": "cpu"},
        "evaluation": {"protocol": "vmz-1"},
    }
    return FinetuneConfig.model_validate(values)


@pytest.fixture
def moved(trained: Path, tmp_path: Path) -> Path:
    """The datasets, and the runs without their frame stores, in another place."""
    for name in ("folders", "lists", "F", "L"):
        shutil.copytree(trained / name, tmp_path / name, ignore=shutil.ignore_patterns("frames"))
    shutil.copy(trained / "lists.csv", tmp_path / "lists.csv")
    return tmp_path


def scoring(run: Path, **values: Any) -> EvaluateConfig:
    return EvaluateConfig.model_validate(
        {"run": str(run), "evaluation": {"protocol": "vmz-1"}, "device": "cpu", **values}
    )


def result_of(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


def refused(run: Path, error: type[DistInitError], **dataset: Any) -> DistInitError:
    """The error of ``evaluate``, which must not begin to build frames."""
    with pytest.raises(error) as caught:
        evaluate(scoring(run, dataset=dataset))
    assert not (run / "frames").exists()
    return caught.value


def test_frames_are_built_from_the_test_videos_of_the_named_dataset(moved: Path) -> None:
    run = moved / "F"
    shutil.rmtree(moved / "folders" / "train" / "b")
    make_video(moved / "folders" / "train" / "b" / "other.mp4", frames=6, seed=9)
    result = evaluate(scoring(run, dataset={"root": str(moved / "folders")}))
    assert result.model_dump(mode="json") == result_of(run)
    store = FrameStore.open(run / "frames")
    dataset = json.loads((run / "dataset.json").read_text())
    tests = {row["digest"] for row in dataset["videos"] if row["subset"] == "test"}
    assert set(store.by_digest) == tests
    shutil.rmtree(moved / "folders")
    assert evaluate(scoring(run)) == result  # now the store is there


def test_the_split_of_the_run_needs_no_dataset_and_another_one_is_refused(
    trained: Path, tmp_path: Path
) -> None:
    lists = tmp_path / "official"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 a\n2 b\n")
    for split, (train, test) in enumerate((("34", "12"), ("12", "34")), 1):
        for name, (a, b) in (("trainlist", train), ("testlist", test)):
            (lists / f"{name}0{split}.txt").write_text(f"a/{a}.mp4\nb/{b}.mp4\n")
    dataset = {"root": str(trained / "lists"), "splits": str(lists), "split": 2}
    finetune(configured(tmp_path / "U", **dataset))
    command = ["evaluate", "--run", str(tmp_path / "U"), "--protocol", "vmz-1", "--device", "cpu"]
    command += ["--json", "--quiet"]
    shown = CliRunner().invoke(main, [*command, "--split", "2"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout) == result_of(tmp_path / "U")
    for options, parts in (
        (("--split", "1"), ("another split", "--split 2", "training videos may be test videos")),
        (("--split", "2", "--subset", "val"), ("has no val videos", "leave --subset out")),
        (("--splits", str(lists)), ("splits needs root, the folder of the videos (--dataset)",)),
    ):
        refused = CliRunner().invoke(main, [*command, *options])
        assert refused.exit_code == 2
        for part in parts:
            assert part in refused.stderr


def test_the_labels_of_lists_are_those_that_the_run_recorded(moved: Path) -> None:
    run, lists = moved / "L", str(moved / "lists")
    (moved / "lists" / "a" / "1.mp4").unlink()  # a training video
    frames = str(moved / "store")
    result = evaluate(scoring(run, dataset={"root": lists}, frames=frames))
    assert result.model_dump(mode="json") == result_of(run)
    assert not (run / "frames").exists()
    assert len(FrameStore.open(frames).videos) == 2


def test_other_classes_labels_or_videos_are_refused(moved: Path) -> None:
    run, lists, csv = moved / "L", str(moved / "lists"), moved / "lists.csv"
    given = {"root": lists, "splits": str(csv)}
    write_csv(csv, *ROWS[:2], ("a/3", "walk", "test"), ("b/4", "run", "test"))
    error = refused(run, ConfigError, **given)
    assert error.problem == "the test videos of --dataset and of the run differ"
    assert error.found == "2 with another label: a/3.mp4, b/4.mp4"
    write_csv(csv, ("a/3", "run", "train"), *ROWS[1:2], ("a/1", "run", "test"), *ROWS[3:])
    error = refused(run, ConfigError, **given)
    assert error.found == "1 missing: a/3.mp4; 1 not in the run: a/1.mp4"
    write_csv(csv, *((place, label.replace("run", "zoom"), s) for place, label, s in ROWS))
    error = refused(run, ConfigError, **given)
    assert error.problem == "the classes of --dataset and of the run differ"
    assert error.found == "2 classes; missing: run; not in the run: zoom"


def test_other_bytes_and_missing_videos_are_refused(moved: Path) -> None:
    make_video(moved / "lists" / "a" / "3.mp4", frames=6, seed=8)
    make_video(moved / "folders" / "test" / "a" / "3.mp4", frames=6, seed=8)
    error = refused(moved / "L", ConfigError, root=str(moved / "lists"))
    assert error.found == "other bytes: a/3.mp4"
    error = refused(moved / "F", ConfigError, root=str(moved / "folders"))
    assert error.found == "1 with other bytes: test/a/3.mp4"
    (moved / "lists" / "a" / "3.mp4").unlink()
    error = refused(moved / "L", DatasetError, root=str(moved / "lists"))
    assert error.found == "missing: a/3.mp4"


def test_a_path_that_a_received_run_recorded_never_leads_out_of_the_dataset(moved: Path) -> None:
    run = moved / "L"
    text = (run / "dataset.json").read_text().replace("a/3.mp4", "../lists/a/3.mp4")
    (run / "dataset.json").write_text(text)
    refused(run, ConfigError, root=str(moved / "lists"))  # does not match run.json
    record = json.loads((run / "run.json").read_text())
    record["inputs"]["dataset"] = DatasetRecord.model_validate_json(text).content_digest()
    (run / "run.json").write_text(json.dumps(record))
    error = refused(run, DatasetError, root=str(moved / "lists"))
    assert error.found == "'../lists/a/3.mp4'"


def test_a_store_with_other_pixels_is_not_built(moved: Path) -> None:
    run = moved / "F"
    record = json.loads((run / "run.json").read_text())
    record["inputs"]["geometry"] = "0" * 64
    (run / "run.json").write_text(json.dumps(record))
    error = refused(run, ConfigError, root=str(moved / "folders"))
    assert error.problem.startswith("the frames of the test videos would differ")
    assert "--frames" in (error.remedy or "")
