"""Stage two on a real cache and frame store: files, resume after SIGKILL, Ray workers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.progress import RecordingProgress

from distinit.cli import main
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.distillation.task import open_distill_task
from distinit.pipeline.students.io import read_student
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ComputeError, ConfigError, RunMismatchError
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.frames import FlowConfig
from distinit.schemas.run import DistillResult
from distinit.schemas.training import FLOW_PIXELS
from distinit.stages.distill import distill
from distinit.stages.extract import extract
from distinit.stages.flow import build_flow
from distinit.stages.runs import list_runs

FRAMES = 20 + 33 + 12 + 41 + 150


@pytest.fixture(scope="module")
def extracted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache of the null teacher and frame store, for the five good videos."""
    root = tmp_path_factory.mktemp("extracted")
    values = {
        "videos": str(corpus),
        "teachers": [{"name": "null", "id": "null"}],
        "cache": str(root / "cache"),
        "frames": str(root / "frames"),
        "unit_rows": 64,
    }
    extract(ExtractConfig.model_validate(values))
    return root


def config(extracted: Path, out: Path, **changes: Any) -> DistillConfig:
    values: dict[str, Any] = {
        "cache": str(extracted / "cache"),
        "frames": str(extracted / "frames"),
        "out": str(out),
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 4, "crop": 32},
        "optimizer": {"clips_per_epoch": 24, "epochs": 2},
        "runtime": {"batch_size": 4, "device": "cpu", "checkpoint_steps": 2, "log_seconds": 0},
    }
    merged = {
        key: {**values[key], **changes.get(key, {})}
        if isinstance(values.get(key), dict)
        else changes.get(key, values.get(key))
        for key in values.keys() | changes.keys()
    }
    return DistillConfig.model_validate(merged)


def curve(out: Path) -> list[tuple[int, float, float]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [(m["step"], m["loss"], m["learning_rate"]) for m in map(json.loads, lines)]


@pytest.fixture(scope="module")
def whole(extracted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 12 steps."""
    out = tmp_path_factory.mktemp("whole") / "run"
    distill(config(extracted, out))
    return out


def test_a_run_opens_its_cache_once(
    extracted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    open_cache = TargetCache.open

    def counting(root: Any, **options: Any) -> TargetCache:
        opened.append(root)
        return open_cache(root, **options)

    monkeypatch.setattr(TargetCache, "open", counting)
    distill(config(extracted, tmp_path / "run", optimizer={"epochs": 1, "clips_per_epoch": 4}))
    assert opened == [str(extracted / "cache")]


def test_a_run_writes_a_student_and_its_record(extracted: Path, whole: Path) -> None:
    student, record = read_student(whole)
    cache = json.loads((extracted / "cache" / "manifest.json").read_text())
    assert record.trained_by == "distill"
    assert record.cache_digest == cache["content_digest"]
    assert record.heads[0].teacher_fingerprint == cache["teachers"]["null"]["fingerprint"]
    assert record.config["optimizer"]["clips_per_epoch"] == 24
    outputs = student.eval()(torch.zeros(1, 3, 4, 32, 32))
    assert outputs["null"].shape == (1, cache["teachers"]["null"]["classes"])
    result = DistillResult.model_validate_json((whole / "result.json").read_bytes())
    assert (result.steps, result.clips, result.epochs, result.videos) == (12, 48, 2, 5)
    assert result.loss == sum(loss for _, loss, _ in curve(whole)[-6:]) / 6
    assert [step for step, _, _ in curve(whole)] == list(range(1, 13))
    assert (whole / "loss.png").stat().st_size > 1000
    assert f"distinit:{whole}" in result.summary()
    lines = result.summary().splitlines()
    assert re.fullmatch(r"2 epochs, 12 steps, 48 clips of 5 videos in \d+\.\d s", lines[0])
    assert lines[1] == f"mean loss of the last epoch: {result.loss:.4f}"
    assert result.bottleneck.startswith("bottleneck: ")
    assert result.bottleneck in result.summary().splitlines()


def test_an_epoch_follows_the_corpus_and_its_length_is_recorded(
    extracted: Path, tmp_path: Path
) -> None:
    """Five videos: ten steps of two clips. The recorded configuration reproduces the run."""
    out, progress = tmp_path / "run", RecordingProgress()
    following = {"clips_per_epoch": "auto", "epochs": 1}
    given = config(extracted, out, optimizer=following, runtime={"batch_size": 2})
    result = distill(given, progress=progress)
    line = "20 clips = 4 passes over 5 videos (1 epoch, 10 steps of 2 clips)"
    assert line in progress.messages
    assert progress.values[line]["clips"] == 20
    assert (result.steps, result.clips, result.videos) == (10, 20, 5)
    recorded = json.loads((out / "run.json").read_text())["config"]
    assert recorded["optimizer"]["clips_per_epoch"] == 20
    assert read_student(out)[1].config == recorded
    assert distill(DistillConfig.model_validate(recorded)) == result, "it is the same run"
    assert distill(given) == result
    with pytest.raises(RunMismatchError, match=r"optimizer.clips_per_epoch: 20 there, 24 now"):
        distill(config(extracted, out, optimizer={"epochs": 1}, runtime={"batch_size": 2}))


def test_the_options_of_the_command_set_their_keys(extracted: Path, tmp_path: Path) -> None:
    """One run of two steps, whose start is also an event for scripts."""
    out = tmp_path / "run"
    command = ["distill", "--cache", str(extracted / "cache")]
    command += ["--frames", str(extracted / "frames"), "--out", str(out), "--json"]
    command += ["--student", "tiny_r2plus1d_10", "--set", "clip={frames: 4, crop: 32}"]
    command += ["--epochs", "1", "--clips-per-epoch", "8", "--batch-size", "4", "--lr", "0.005"]
    command += ["--seed", "7", "--precision", "fp32", "--device", "cpu"]
    command += ["--pick", "center", "--loss", "kl", "--keep-fraction", "0.75"]
    refused = CliRunner().invoke(main, [*command, "--precision", "bf16"])
    assert refused.exit_code == 2
    assert "training in bf16 needs a GPU" in refused.output
    assert not out.exists(), "so that the corrected command can use this folder"
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    found = DistillConfig.model_validate(json.loads((out / "run.json").read_text())["config"])
    optimizer, runtime, (target,) = found.optimizer, found.runtime, found.targets
    assert (optimizer.epochs, optimizer.clips_per_epoch, optimizer.learning_rate) == (1, 8, 0.005)
    assert (runtime.batch_size, runtime.seed, runtime.precision) == (4, 7, "fp32")
    assert (target.pick, target.loss, target.filter.keep_fraction) == ("center", "kl", 0.75)
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert {
        "event": "message",
        "text": "8 clips = about 1.6 passes over 5 videos (1 epoch, 2 steps of 4 clips)",
        "clips": 8,
        "videos": 5,
        "epochs": 1,
        "steps": 2,
        "clips_per_step": 4,
    } in events


def test_a_finished_run_is_reported_and_keeps_its_files(extracted: Path, whole: Path) -> None:
    before = (whole / "student.safetensors").stat().st_mtime_ns
    progress = RecordingProgress()
    result = distill(config(extracted, whole), progress=progress)
    assert progress.messages == [f"{whole} is already finished: nothing to do"]
    assert result.steps == 12
    assert (whole / "student.safetensors").stat().st_mtime_ns == before


def test_another_configuration_is_refused(extracted: Path, whole: Path) -> None:
    with pytest.raises(RunMismatchError, match=r"targets.0.loss: cross_entropy there, kl now"):
        distill(config(extracted, whole, targets=[{"loss": "kl"}]))


def test_an_invalid_configuration_leaves_no_run_directory(extracted: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown student"):
        distill(config(extracted, tmp_path / "run", student={"name": "nonsense"}))
    assert not (tmp_path / "run").exists()


def test_a_student_of_flow_learns_the_targets_of_rgb_frames(
    extracted: Path, tmp_path: Path
) -> None:
    flow = tmp_path / "flow"
    built = build_flow(FlowConfig(frames=str(extracted / "frames"), out=str(flow)))
    assert built.frames == FRAMES
    assert f"--frames {flow}" in built.summary()
    student = {"name": "tiny_r2plus1d_10", "in_channels": 2}
    changes: dict[str, Any] = {"frames": str(flow), "student": student}
    result = distill(config(extracted, tmp_path / "run", **changes))
    assert result.steps == 12
    loaded, record = read_student(tmp_path / "run")
    assert (record.clip.mean, record.clip.std) == (FLOW_PIXELS["mean"], FLOW_PIXELS["std"])
    assert loaded.state_dict()["backbone.stem.0.0.weight"].shape[1] == 2
    # The same clips have the same targets, whichever pixels the student sees.
    rgb = open_distill_task(config(extracted, tmp_path / "x"))
    other = open_distill_task(config(extracted, tmp_path / "x", **changes))
    batches = [task.load(1, np.arange(8)) for task in (rgb, other)]
    assert torch.equal(batches[0].targets["target/null"], batches[1].targets["target/null"])
    assert [b.pixels_BTCHW.shape[2] for b in batches] == [3, 2]
    # A moved store may be used to resume a run; a store of another kind may not.
    moved = shutil.copytree(flow, tmp_path / "moved")
    distill(config(extracted, tmp_path / "run", **changes | {"frames": str(moved)}))
    with pytest.raises(RunMismatchError, match="frames"):
        distill(config(extracted, tmp_path / "run", student=student | {"in_channels": 3}))


def test_a_teacher_added_to_the_cache_does_not_affect_runs_without_it(
    extracted: Path, corpus: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(extracted, tmp_path / "copy")
    target: dict[str, Any] = {"targets": [{"teacher": "null"}]}
    changes = target | {"runtime": {"batch_size": 4, "device": "cpu"}}
    first = distill(config(root, tmp_path / "run", **changes))
    (tmp_path / "run" / "result.json").unlink()
    before = TargetCache.open(root / "cache").manifest.content_digest
    values = {
        "videos": str(corpus),
        "teachers": [{"name": "null", "id": "other", "resize": "fast"}],
        "cache": str(root / "cache"),
        "unit_rows": 64,
    }
    extract(ExtractConfig.model_validate(values))
    cache = TargetCache.open(root / "cache")
    assert sorted(cache.teachers) == ["null", "other"]
    assert cache.manifest.content_digest != before
    assert cache.digest_of(["null"]) == before
    assert cache.digest_of(["other"]) not in (before, cache.manifest.content_digest)
    assert cache.digest_of(["other", "null"]) == cache.manifest.content_digest
    again = distill(config(root, tmp_path / "run", **changes))
    assert again.loss == first.loss
    with pytest.raises(RunMismatchError, match=r"inputs\.targets"):
        distill(config(root, tmp_path / "run", **changes | {"targets": [{"teacher": "other"}]}))


def start(config: DistillConfig) -> subprocess.Popen[bytes]:
    """Start the run in a separate process."""
    code = (
        "import sys; from distinit.schemas.distill import DistillConfig; "
        "from distinit.stages.distill import distill; "
        "distill(DistillConfig.model_validate_json(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, config.model_dump_json()]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_after(process: subprocess.Popen[bytes], metrics: Path, lines: int) -> None:
    """Kill ``process`` with SIGKILL as soon as it has written ``lines`` metric lines."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= lines:
            break
        if process.poll() is not None:
            pytest.fail(f"the run ended before it was killed, with {process.returncode}")
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_run_resumes_to_the_same_curve_and_student(
    extracted: Path, tmp_path: Path
) -> None:
    # Forty steps, so that the process is killed well before the end, even on a busy machine.
    changes: dict[str, Any] = {"optimizer": {"clips_per_epoch": 80}, "targets": [{"pick": "all"}]}
    distill(config(extracted, tmp_path / "whole", **changes))
    cut = tmp_path / "cut"
    process = start(config(extracted, cut, **changes))
    kill_after(process, cut / "metrics.jsonl", 7)
    assert not (cut / "result.json").exists()
    (unfinished,) = list_runs(cut).runs
    cache = json.loads((extracted / "cache" / "manifest.json").read_text())
    assert unfinished.state == "resumable"
    assert unfinished.cache_digest == cache["content_digest"]
    progress = RecordingProgress()
    result = distill(config(extracted, cut, **changes), progress=progress)
    (resumed,) = (text for text in progress.messages if text.startswith("resuming after step"))
    step = int(resumed.split()[3])
    assert (result.clips, result.resumed_clips) == (160, 4 * step)
    own = (
        f"160 clips of 5 videos; {160 - 4 * step} of them in {result.seconds:.1f} s after resuming"
    )
    assert result.summary().splitlines()[0] == f"2 epochs, 40 steps, {own}"
    assert curve(cut) == curve(tmp_path / "whole")
    ours, theirs = (read_student(p)[0].state_dict() for p in (cut, tmp_path / "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_learning_lowers_the_loss(extracted: Path, tmp_path: Path) -> None:
    changes = {"optimizer": {"learning_rate": 0.05, "epochs": 8}}
    result = distill(config(extracted, tmp_path / "run", **changes))
    losses = [loss for _, loss, _ in curve(tmp_path / "run")]
    assert sum(losses[-6:]) < sum(losses[:6])
    assert result.loss == sum(losses[-6:]) / 6


def holder_of(path: Path) -> int | None:
    """A process that has the file open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == path:
                return int(link.parts[2])
        except OSError:
            continue
    return None


def kill_holder(path: Path, lines: int, killed: list[int]) -> None:
    """Kill the process that writes ``path`` with SIGKILL once it has written ``lines`` lines."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        if path.exists() and path.read_bytes().count(b"\n") >= lines:
            pid = holder_of(path)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            return
        time.sleep(0.002)


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_two_ray_workers_train_the_same_bits_as_one_process_even_if_one_is_killed(
    extracted: Path, tmp_path: Path, ray_session: None
) -> None:
    changes: dict[str, Any] = {"optimizer": {"clips_per_epoch": 160}}
    shards = {"shards": 2, "batch_size": 2}
    one = distill(config(extracted, tmp_path / "one", runtime=shards, **changes))
    killed: list[int] = []
    metrics = tmp_path / "two" / "metrics.jsonl"
    killer = threading.Thread(target=kill_holder, args=(metrics, 5, killed), daemon=True)
    killer.start()
    workers = shards | {"workers": 2, "keep_checkpoints": 1000}
    progress = RecordingProgress()
    two = distill(
        config(extracted, tmp_path / "two", runtime=workers, **changes), progress=progress
    )
    killer.join()
    ((_, _, unit, done),) = progress.started
    assert (unit, done + progress.advanced) == ("clips", 320)
    assert len(killed) == 1
    assert (one.steps, one.clips) == (two.steps, two.clips) == (80, 320)
    assert curve(tmp_path / "two") == curve(tmp_path / "one")
    # One process resumes the run of two workers at step 40.
    resumed = shutil.copytree(tmp_path / "two", tmp_path / "resumed")
    for name in ("result.json", "student.safetensors", "student.json"):
        (resumed / name).unlink()
    for checkpoint in (resumed / "checkpoints").glob("step-*"):
        if int(checkpoint.name.removeprefix("step-")) > 40:
            shutil.rmtree(checkpoint)
    distill(config(extracted, resumed, runtime=shards, **changes), progress=progress)
    assert "resuming after step 40 (epoch 2)" in progress.messages
    assert curve(resumed) == curve(tmp_path / "one")
    runs = ("one", "two", "resumed")
    one_by_one = [read_student(tmp_path / name)[0].state_dict() for name in runs]
    for name, tensor in one_by_one[0].items():
        assert all(torch.equal(tensor, other[name]) for other in one_by_one[1:]), name


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_an_error_on_a_ray_worker_keeps_its_message_and_remedy(
    extracted: Path, tmp_path: Path, ray_session: None
) -> None:
    changes = {
        "optimizer": {"learning_rate": 1e30},
        "runtime": {"workers": 1},
        "targets": [{"loss": "mse"}],
    }
    with pytest.raises(ComputeError, match="not a finite number") as caught:
        distill(config(extracted, tmp_path / "run", **changes))
    assert caught.value.remedy is not None
    assert "learning_rate" in caught.value.remedy
    assert not (tmp_path / "run" / "result.json").exists()
