"""A received run is untrusted: plugins and folders that only its files name are not used."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.videos import make_video
from safetensors.torch import load_file, save_file

from distinit.pipeline.students.heads import new_student
from distinit.pipeline.students.io import save_student
from distinit.schemas.errors import CheckpointError, ConfigError, DistInitError, StorageError
from distinit.schemas.finetune import EvaluateConfig, FinetuneConfig
from distinit.schemas.run import HeadRecord, StudentRecord
from distinit.schemas.training import ClipConfig, StudentConfig
from distinit.stages.evaluate import evaluate
from distinit.stages.finetune import finetune

TINY = StudentConfig(name="tiny_r2plus1d_10")
PLUGIN = "plugin:hostile_student:build"
SOURCE = """
from pathlib import Path
from distinit.pipeline.students.tiny import TINY_STUDENTS
Path({marker!r}).touch()
build = TINY_STUDENTS["tiny_r2plus1d_10"]
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``dataset`` and ``run``: a finished finetune run with its frame store."""
    root = tmp_path_factory.mktemp("trained")
    for number, place in enumerate(("train/a/1", "train/b/2", "test/a/3", "test/b/4")):
        make_video(root / "dataset" / f"{place}.mp4", frames=6, seed=number)
    finetune(configured(root, root / "run"))
    return root


def configured(root: Path, out: Path, **values: Any) -> FinetuneConfig:
    defaults: dict[str, Any] = {
        "dataset": {"root": str(root / "dataset")},
        "out": str(out),
        "student": TINY,
        "clip": {"frames": 2, "crop": 16},
        "optimizer": {"epochs": 1, "clips_per_epoch": 4},
        "runtime": {"batch_size": 4, "device": "cpu"},
        "evaluation": {"protocol": "vmz-1"},
    }
    return FinetuneConfig.model_validate(defaults | values)


@pytest.fixture
def received(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, which a test changes as an attacker might."""
    return shutil.copytree(trained / "run", tmp_path / "received" / "run")


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists once the plugin has been imported."""
    path = tmp_path / "imported"
    (tmp_path / "hostile_student.py").write_text(SOURCE.format(marker=str(path)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hostile_student", raising=False)
    return path


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def scoring(run: Path, **values: Any) -> EvaluateConfig:
    return EvaluateConfig.model_validate(
        {"run": str(run), "evaluation": {"protocol": "vmz-1"}, "device": "cpu", **values}
    )


def test_evaluate_never_imports_a_plugin_that_only_the_run_names(
    received: Path, marker: Path
) -> None:
    expected = evaluate(scoring(received))
    edit(received / "student.json", student={"name": PLUGIN, "in_channels": 3})
    for named in (None, "plugin:other_module:build", "tiny_r2plus1d_10"):
        with pytest.raises(
            ConfigError, match="names a plugin as its network, which only runs if you"
        ) as caught:
            evaluate(scoring(received, student=named))
        assert caught.value.found == PLUGIN
    assert not marker.exists()
    assert "hostile_student" not in sys.modules
    assert evaluate(scoring(received, student=PLUGIN)) == expected
    assert marker.exists()


@pytest.mark.parametrize("init", ["distinit:{run}", "file:{run}", "file:{run}/student.safetensors"])
def test_finetune_never_imports_a_plugin_that_only_the_init_names(
    trained: Path, tmp_path: Path, marker: Path, init: str
) -> None:
    run = tmp_path / "distilled"
    student = new_student(TINY, {"teacher": 5}, seed=9)
    record = StudentRecord(
        student=StudentConfig(name=PLUGIN),
        clip=ClipConfig(frames=2, crop=16),
        feature_dim=128,
        heads=(HeadRecord(name="teacher", outputs=5, label_space="x"),),
        trained_by="distill",
        config={},
    )
    run.mkdir()
    save_student(run, student, record)
    init = init.format(run=run)
    with pytest.raises(ConfigError, match="names a plugin as its network, which only runs if you"):
        finetune(configured(trained, tmp_path / "a", init=init, student=None))
    with pytest.raises(DistInitError):
        finetune(configured(trained, tmp_path / "b", init=init, student=TINY))
    assert not marker.exists()
    assert not (tmp_path / "a").exists()
    named = configured(trained, tmp_path / "c", init=init, student=StudentConfig(name=PLUGIN))
    assert finetune(named).network == PLUGIN
    assert marker.exists()


def test_malformed_plugin_names_are_rejected(received: Path) -> None:
    for name in ("plugin:os:system;reboot", "plugin:a", "plugin:../x:y", "plugin:a:b\u202e"):
        edit(received / "student.json", student={"name": name, "in_channels": 3})
        with pytest.raises(CheckpointError, match="not a valid StudentRecord"):
            evaluate(scoring(received))


def test_evaluate_opens_a_frame_store_elsewhere_only_if_it_is_named(
    received: Path, tmp_path: Path
) -> None:
    expected = evaluate(scoring(received))
    (tmp_path / "far").mkdir()
    elsewhere = shutil.move(received / "frames", tmp_path / "far" / "elsewhere")
    config = json.loads((received / "run.json").read_text())["config"]
    edit(received / "run.json", config=config | {"frames": str(elsewhere)})
    with pytest.raises(ConfigError, match="frame store elsewhere") as caught:
        evaluate(scoring(received))
    assert caught.value.found == f"{elsewhere} in run.json"
    assert evaluate(scoring(received, frames=str(elsewhere))) == expected
    sibling = shutil.move(elsewhere, received.parent / "frames")
    edit(received / "run.json", config=config | {"frames": str(sibling)})
    assert evaluate(scoring(received)) == expected
    # A link next to the run points elsewhere.
    shutil.move(sibling, elsewhere)
    Path(sibling).symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="frame store elsewhere"):
        evaluate(scoring(received))
    # Two folders above the run, as work/frames is above work/runs/b.
    above = shutil.move(elsewhere, tmp_path / "store")
    edit(received / "run.json", config=config | {"frames": str(above)})
    assert evaluate(scoring(received)) == expected
    # What has the name of the store near the run is another store: not the frames of the run.
    manifest = json.loads((tmp_path / "store" / "store.json").read_text())
    geometry = manifest["geometry"] | {"jpeg_quality": 80}
    edit(received / "run.json", config=config | {"frames": "/elsewhere/store"})
    assert evaluate(scoring(received)) == expected
    edit(tmp_path / "store" / "store.json", geometry=geometry)
    with pytest.raises(ConfigError, match="frame store elsewhere"):
        evaluate(scoring(received))


def test_a_whole_work_folder_can_be_moved(trained: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(trained / "dataset", work / "dataset")
    config = configured(work, work / "runs" / "a", frames=str(work / "frames"))
    expected = finetune(config).evaluation
    moved = Path(shutil.move(work, tmp_path / "moved"))
    run = moved / "runs" / "a"
    assert evaluate(scoring(run)) == expected
    student = (run / "student.safetensors").read_bytes()
    for name in ("result.json", "student.json", "student.safetensors"):
        (run / name).unlink()
    again = finetune(configured(moved, run, frames=str(moved / "frames")))
    assert again.evaluation == expected
    assert (run / "student.safetensors").read_bytes() == student
    # The moved run as an init, and a store under another name, which is not found by itself.
    init = finetune(configured(moved, moved / "b", init=f"file:{run / 'student.safetensors'}"))
    assert init.load.loaded
    shutil.move(moved / "frames", moved / "other")
    with pytest.raises(ConfigError, match="frame store elsewhere"):
        evaluate(scoring(run))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("run.json", {"format_version": 2}, "does not read"),
        ("run.json", {"format": "other"}, "does not read"),
        ("run.json", {"config": {}}, r"config.dataset"),
        ("run.json", {"config": {"optimizer": 3}}, r"config.dataset"),
        ("dataset.json", {"classes": ["a"]}, "not a valid DatasetRecord"),
        ("dataset.json", {"classes": ["a", "b", "c"]}, "3 classes"),
        ("student.json", {"format_version": 9}, "does not read"),
        ("student.json", {"feature_dim": 10**9}, "does not fit the heads"),
        ("student.json", {"heads": []}, "does not fit the student"),
        ("student.json", {"clip": {"frames": 10**9}}, "not a valid StudentRecord"),
        ("student.json", {"clip": {"mean": [], "std": []}}, "mean and std do not fit"),
        ("student.json", {"student": {"name": "r3d_18"}}, "does not fit"),
        ("student.json", {"student": {"name": "no_such_net"}}, "unknown student"),
    ],
)
def test_records_that_do_not_match_are_rejected(
    received: Path, name: str, values: dict[str, Any], message: str
) -> None:
    edit(received / name, **values)
    with pytest.raises(DistInitError, match=message):
        evaluate(scoring(received))


def test_a_changed_label_or_mean_is_detected(received: Path) -> None:
    dataset = json.loads((received / "dataset.json").read_text())
    videos = [video | {"label": 1 - video["label"]} for video in dataset["videos"]]
    edit(received / "dataset.json", videos=videos)
    with pytest.raises(ConfigError, match=r"dataset\.json does not match run\.json"):
        evaluate(scoring(received))
    (received / "dataset.json").write_text(json.dumps(dataset))
    clip = json.loads((received / "student.json").read_text())["clip"]
    edit(received / "student.json", clip=clip | {"mean": [0.4, 0.5, 0.6]})
    with pytest.raises(ConfigError, match=r"student\.json does not match run\.json"):
        evaluate(scoring(received))


@pytest.mark.parametrize("outputs", [10**6, 3])
def test_a_head_that_the_file_does_not_hold_is_never_allocated(
    received: Path, outputs: int
) -> None:
    head = {"name": "labels", "outputs": outputs, "label_space": "dataset:folders"}
    edit(received / "student.json", heads=[head])
    with pytest.raises(CheckpointError, match="does not fit the heads") as caught:
        evaluate(scoring(received))
    assert (caught.value.expected, caught.value.found) == (
        f"heads.labels.weight of shape ({outputs}, 128)",
        (2, 128),
    )


def test_evaluate_does_not_write_through_a_link(received: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (received / "result-vmz-1.json").symlink_to(victim)
    with pytest.raises(StorageError, match="holds a link"):
        evaluate(scoring(received))
    assert victim.read_text() == "precious"


def test_weights_that_are_not_finite_are_rejected(received: Path) -> None:
    path = received / "student.safetensors"
    tensors = load_file(path)
    tensors["heads.labels.bias"][0] = torch.nan
    save_file(tensors, path)
    data = path.read_bytes()  # the attacker also updates the checksum
    edit(
        received / "student.json",
        tensors={"size": len(data), "sha256": hashlib.sha256(data).hexdigest()},
    )
    with pytest.raises(CheckpointError, match=r"labels\.bias holds values that are not finite"):
        evaluate(scoring(received))
