"""A whole work folder is moved: every command goes on with it as before."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from helpers.progress import RecordingProgress
from helpers.sources import FRAMES, write_cache, write_frames
from helpers.videos import make_video

from distinit.cli import main
from distinit.pipeline.interruption import Interrupted
from distinit.pipeline.training.checkpoint import newest_step
from distinit.schemas.distill import DistillConfig
from distinit.stages.distill import distill

STEPS, STOPPED_AT = 8, 3
TRAINING = {
    "student": {"name": "tiny_r2plus1d_10"},
    "clip": {"frames": 2, "crop": 16},
    "optimizer": {"clips_per_epoch": 8, "epochs": 2},
    "runtime": {"batch_size": 2, "device": "cpu"},
}
TUNING = ("--epochs", "1", "--clips-per-epoch", "4", "--batch-size", "4", "--device", "cpu")
TUNING += ("--set", "clip.frames=2", "--set", "clip.crop=16", "--protocol", "vmz-1")
ON_CPU = ("--protocol", "vmz-1", "--device", "cpu")
PROBE = ("--set", "linear.steps=5", "--set", "linear.learning_rates=[0.1]", "--set", "shots=[1]")


@dataclass(frozen=True)
class Moved:
    """The work folder in its new place, and what its files were in the old one."""

    work: Path
    before: Mapping[str, bytes]

    def path(self, name: str) -> str:
        return str(self.work / name)


class Stopping(RecordingProgress):
    """Sends SIGTERM to its own process after STOPPED_AT steps."""

    def advance(self, amount: float = 1, **shown: Any) -> None:
        super().advance(amount, **shown)
        if len(self.advances) == STOPPED_AT:
            os.kill(os.getpid(), signal.SIGTERM)


def distilling(work: Path, out: str) -> DistillConfig:
    places = {"cache": "cache", "frames": "frames", "out": f"runs/{out}"}
    paths = {key: str(work / name) for key, name in places.items()}
    return DistillConfig.model_validate(TRAINING | paths)


def labelled(work: Path) -> list[str]:
    return ["--dataset", str(work / "dataset"), "--frames", str(work / "labelled")]


def run(*command: str) -> Result:
    result = CliRunner().invoke(main, [*command, "--quiet"])
    assert result.exit_code == 0, result.output
    return result


def probing(work: Path) -> list[str]:
    init = f"distinit:{work / 'runs' / 'distilled'}"
    out = str(work / "probe")
    return ["probe", "--init", init, *labelled(work), *ON_CPU, *PROBE, "--out", out]


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Moved:
    root = tmp_path_factory.mktemp("moved")
    work = root / "work"
    write_cache(work / "cache", ("alpha",))
    write_frames(work / "frames", FRAMES)
    for number, place in enumerate(("train/a/1", "train/b/2", "test/a/3", "test/b/4")):
        make_video(work / "dataset" / f"{place}.mp4", frames=6, seed=number)
    distill(distilling(work, "distilled"))
    with pytest.raises(Interrupted, match=f"stopped at step {STOPPED_AT} of {STEPS}"):
        distill(distilling(work, "stopped"), progress=Stopping())
    for seed, name in enumerate(("a", "b")):
        start = ["--init", "scratch", "--student", "tiny_r2plus1d_10", "--seed", str(seed)]
        run("finetune", *labelled(work), *start, *TUNING, "--out", str(work / "runs" / name))
    a = str(work / "runs" / "a")
    run("features", "--run", a, *labelled(work), *ON_CPU, "--out", str(work / "features"))
    run(*probing(work))
    run("figures", "gain", *gain_of(work), "--out", str(work / "figures"))
    before = {str(p.relative_to(work)): p.read_bytes() for p in work.rglob("*") if p.is_file()}
    target = root / "another disk" / "renamed"
    target.parent.mkdir()
    shutil.move(work, target)
    return Moved(target, before)


def gain_of(work: Path) -> list[str]:
    return ["--run", f"a={work / 'runs' / 'a'}", "--run", f"b={work / 'runs' / 'b'}"]


def test_a_stopped_distillation_resumes_to_the_student_of_a_run_that_was_never_moved(
    moved: Moved,
) -> None:
    stopped = moved.work / "runs" / "stopped"
    assert newest_step(stopped / "checkpoints") == STOPPED_AT
    progress = RecordingProgress()
    distill(distilling(moved.work, "stopped"), progress=progress)
    assert any(text.startswith(f"resuming after step {STOPPED_AT}") for text in progress.messages)
    student = (stopped / "student.safetensors").read_bytes()
    assert student == moved.before["runs/distilled/student.safetensors"]


def test_a_finished_distillation_is_known_and_names_its_new_place(moved: Moved) -> None:
    progress = RecordingProgress()
    result = distill(distilling(moved.work, "distilled"), progress=progress)
    out = moved.path("runs/distilled")
    assert progress.messages == [f"{out} is already finished: nothing to do"]
    assert (result.out, result.student) == (out, f"{out}/student.safetensors")


def test_a_finetuning_starts_from_a_moved_distill_run(moved: Moved, tmp_path: Path) -> None:
    init = f"distinit:{moved.path('runs/distilled')}"
    run("finetune", *labelled(moved.work), "--init", init, *TUNING, "--out", str(tmp_path / "c"))
    record = json.loads((tmp_path / "c" / "run.json").read_text())
    student = moved.before["runs/distilled/student.safetensors"]
    assert record["inputs"]["init"] == f"student {hashlib.sha256(student).hexdigest()}"
    assert json.loads((tmp_path / "c" / "load_report.json").read_text())["loaded"]


@pytest.mark.parametrize("options", [(), ("--frames", "labelled"), ("--dataset", "dataset")])
def test_a_moved_run_is_evaluated(moved: Moved, options: tuple[str, ...]) -> None:
    named = [*options[:1], *(moved.path(name) for name in options[1:])]
    shown = run("evaluate", "--run", moved.path("runs/a"), *named, *ON_CPU, "--json")
    assert json.loads(shown.stdout) == json.loads(moved.before["runs/a/result.json"])


def test_features_and_probes_in_the_moved_folder_are_found_and_equal(
    moved: Moved, tmp_path: Path
) -> None:
    for out in (moved.path("features"), str(tmp_path / "new")):
        command = ["features", "--run", moved.path("runs/a"), *labelled(moved.work), *ON_CPU]
        run(*command, "--out", out)
        for name in ("features.parquet", "features.safetensors"):
            assert Path(out, name).read_bytes() == moved.before[f"features/{name}"]
    times = {path: path.stat().st_mtime_ns for path in (moved.work / "probe").glob("features/*/*")}
    run(*probing(moved.work))
    assert times == {path: path.stat().st_mtime_ns for path in times}
    probed = [
        json.loads(text)
        for text in (
            (moved.work / "probe" / "probe.json").read_bytes(),
            moved.before["probe/probe.json"],
        )
    ]
    measures = [[row["measures"] for row in each["rows"]] for each in probed]
    assert measures[0] == measures[1]
    assert len(list((moved.work / "probe" / "features").iterdir())) == 2


def test_a_figure_of_moved_runs_is_the_same_picture(moved: Moved, tmp_path: Path) -> None:
    run("figures", "gain", *gain_of(moved.work), "--out", str(tmp_path))
    assert (tmp_path / "gain.png").read_bytes() == moved.before["figures/gain.png"]


def test_the_old_place_is_an_error_that_says_what_to_correct(moved: Moved, tmp_path: Path) -> None:
    old = moved.work.parent.parent / "work"
    start = ["--init", f"distinit:{old}/runs/distilled", *TUNING, "--out", str(tmp_path / "d")]
    for command, parts in (
        (
            ["finetune", *labelled(moved.work), *start],
            (f"no student at {old}/runs/distilled", "correct the path"),
        ),
        (
            ["distill", "--cache", f"{old}/cache", "--frames", moved.path("frames"), *start[-2:]],
            ("that folder does not exist", "name the folder that"),
        ),
        (["evaluate", "--run", f"{old}/runs/a"], ("is not a finetune run", "correct --run")),
        (
            ["evaluate", "--run", moved.path("runs/a"), "--dataset", f"{old}/dataset"],
            (f"no dataset at {old}/dataset", "check --dataset"),
        ),
    ):
        refused = CliRunner().invoke(main, command)
        assert refused.exit_code in (1, 2)
        assert all(part in refused.stderr for part in parts), refused.stderr
    assert not old.exists()
    assert not (tmp_path / "d").exists()
