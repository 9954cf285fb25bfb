"""Finetuning from videos in class folders to a classifier and its metrics."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from click.testing import CliRunner
from helpers.progress import RecordingProgress
from helpers.students import CLIP, save_distilled
from safetensors.torch import load_file

from distinit.cli import main
from distinit.schemas.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    FrameStoreError,
    RunMismatchError,
)
from distinit.schemas.finetune import (
    FINETUNE_OPTIMIZER,
    SCRATCH_OPTIMIZER,
    EvaluateConfig,
    FinetuneConfig,
)
from distinit.schemas.run import EvaluationResult, StudentRecord
from distinit.stages.evaluate import evaluate
from distinit.stages.finetune import finetune
from distinit.stages.finetune_result import FinetuneResult


def test_scratch_learns_the_classes(finished: tuple[FinetuneConfig, FinetuneResult]) -> None:
    result = finished[1]
    evaluation = result.evaluation
    assert (evaluation.videos, evaluation.clips, evaluation.classes) == (5, 15, 2)
    assert evaluation.failed_videos == ("test/grey/torn.mp4",)
    # Classes are blue, grey. The torn video counts as wrong; all others are correct.
    assert evaluation.confusion == ((2, 0), (0, 2))
    assert (evaluation.top1, evaluation.top5, evaluation.per_clip) == (80.0, 80.0, 80.0)
    assert result.training_videos == 8
    assert result.left_out == ("train/blue/torn.mp4",)
    assert result.optimizer.learning_rate == 0.01
    assert result.optimizer.weight_decay == SCRATCH_OPTIMIZER.weight_decay
    assert result.optimizer.step_epochs == 1
    assert result.load.loaded == ()


def test_the_summary_has_the_schedule_and_not_what_was_said_at_the_start(
    finished: tuple[FinetuneConfig, FinetuneResult],
) -> None:
    result = finished[1]
    for epochs, words in ((1, "x0.1 every epoch,"), (2, "x0.1 every 2 epochs,")):
        optimizer = result.optimizer.model_copy(update={"step_epochs": epochs, "gamma": 0.1})
        summary = result.model_copy(update={"optimizer": optimizer}).summary()
        assert words in summary
        assert "randomly initialised" not in summary


def test_the_run_directory_is_complete(finished: tuple[FinetuneConfig, FinetuneResult]) -> None:
    config, result = finished
    out = Path(config.out)
    record = StudentRecord.model_validate_json((out / "student.json").read_bytes())
    assert record.trained_by == "finetune"
    assert record.label_names == ("blue", "grey")
    assert (record.feature_dim, record.heads[0].outputs) == (128, 2)
    assert load_file(out / "student.safetensors")["heads.labels.weight"].shape == (2, 128)
    stored = EvaluationResult.model_validate_json((out / "result.json").read_bytes())
    assert stored == result.evaluation
    dataset = json.loads((out / "dataset.json").read_text())
    assert list(dataset["undecodable"]) == ["train/blue/torn.mp4", "test/grey/torn.mp4"]
    assert (out / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "load_report.json").is_file()
    lines = (out / "metrics.jsonl").read_text().splitlines()
    last = [json.loads(line)["accuracy"] for line in lines[-8:]]
    assert sum(last) / len(last) > 90


def test_a_finished_run_is_not_repeated(
    finished: tuple[FinetuneConfig, FinetuneResult], tmp_path: Path
) -> None:
    config, result = finished
    student = Path(config.out) / "student.safetensors"
    before = student.stat().st_mtime_ns
    again = finetune(config.model_copy(update={"frames": str(tmp_path / "gone")}))
    assert again == result
    assert student.stat().st_mtime_ns == before


def test_an_epoch_follows_the_training_videos_and_its_length_is_recorded(
    configure: Callable[..., FinetuneConfig], tmp_path: Path
) -> None:
    """Nine training videos, of which one cannot be decoded: ten steps of two clips."""
    out, progress = tmp_path / "run", RecordingProgress()
    given = configure(
        out,
        optimizer={"epochs": 1},
        runtime={"batch_size": 2, "device": "cpu"},
        evaluation={"protocol": "vmz-1"},
    )
    assert given.optimizer.clips_per_epoch == "auto"
    result = finetune(given, progress=progress)
    assert result.training_videos == 8
    assert "20 clips = about 2.5 passes over 8 videos (1 epoch, 10 steps of 2 clips)" in (
        progress.messages
    )
    recorded = json.loads((out / "run.json").read_text())["config"]
    assert recorded["optimizer"]["clips_per_epoch"] == 20
    again = finetune(FinetuneConfig.model_validate(recorded))
    assert again.evaluation == result.evaluation
    assert result.optimizer.clips_per_epoch == 20


def test_the_options_of_the_command_set_their_keys(
    finished: object, dataset: Path, frames: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = ["finetune", "--dataset", str(dataset), "--frames", str(frames), "--out", str(out)]
    command += ["--quiet", "--student", "tiny_r2plus1d_10", "--set", "clip={frames: 4, crop: 32}"]
    command += ["--epochs", "1", "--clips-per-epoch", "8", "--batch-size", "4", "--lr", "0.005"]
    command += ["--seed", "7", "--precision", "fp32", "--split", "1", "--protocol", "vmz-2"]
    command += ["--device", "cpu", "--init", "scratch"]
    refused = CliRunner().invoke(main, [*command, "--precision", "bf16"])
    assert refused.exit_code == 2
    assert "training in bf16 needs a GPU" in refused.output
    assert not out.exists(), "so that the corrected command can use this folder"
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    found = FinetuneConfig.model_validate(json.loads((out / "run.json").read_text())["config"])
    optimizer, runtime = found.optimizer, found.runtime
    assert (optimizer.epochs, optimizer.clips_per_epoch, optimizer.learning_rate) == (1, 8, 0.005)
    assert (runtime.batch_size, runtime.seed, runtime.precision) == (4, 7, "fp32")
    assert (found.dataset.split, found.evaluation.protocol) == (1, "vmz-2")


def test_another_configuration_is_rejected(
    finished: tuple[FinetuneConfig, FinetuneResult], configure: Callable[..., FinetuneConfig]
) -> None:
    out = Path(finished[0].out)
    with pytest.raises(RunMismatchError, match="another configuration") as raised:
        finetune(configure(out, clip={**CLIP, "flip": 0.25}))
    assert "clip.flip: 0.5 there, 0.25 now" in str(raised.value)


def test_evaluate_with_the_same_and_with_another_protocol(
    finished: tuple[FinetuneConfig, FinetuneResult],
) -> None:
    config, result = finished
    values = {"run": config.out, "frames": config.frames, "evaluation": config.evaluation}
    same = evaluate(EvaluateConfig.model_validate(values))
    assert same == result.evaluation
    dense = evaluate(
        EvaluateConfig.model_validate(values | {"evaluation": {"protocol": "dense-s1"}})
    )
    # Test videos have 11, 12, 17 and 18 frames, so 8, 9, 14 and 15 clips; the torn one counts 1.
    assert (dense.clips, dense.top1) == (46 + 1, 80.0)
    stored = Path(config.out) / "result-dense-s1.json"
    assert EvaluationResult.model_validate_json(stored.read_bytes()) == dense


def test_evaluate_needs_a_finetune_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a finetune run"):
        evaluate(EvaluateConfig(run=str(tmp_path)))


def test_the_backbone_of_a_distilled_student_is_loaded_and_its_head_is_not(
    configure: Callable[..., FinetuneConfig], tmp_path: Path
) -> None:
    distilled = save_distilled(tmp_path / "distilled")
    config = configure(
        tmp_path / "run", init=f"distinit:{distilled}", student=None, train_layers="head"
    )
    result = finetune(config)
    assert result.network == "tiny_r2plus1d_10"
    assert result.load.reinitialised == ("heads.labels.bias", "heads.labels.weight")
    assert result.load.unused == ("heads.teacher.bias", "heads.teacher.weight")
    assert result.optimizer.weight_decay == FINETUNE_OPTIMIZER.weight_decay
    assert result.optimizer.step_epochs == 1
    # train_layers head: the backbone is unchanged, including the statistics of batch norm.
    before = load_file(distilled / "student.safetensors")
    after = load_file(tmp_path / "run" / "student.safetensors")
    backbone = [name for name in after if name.startswith("backbone.")]
    assert len(backbone) == len(result.load.loaded) > 40
    assert all(torch.equal(before[name], after[name]) for name in backbone)
    assert result.evaluation.videos == 5


def test_a_run_killed_between_training_and_evaluation_is_resumed(
    finished: tuple[FinetuneConfig, FinetuneResult], tmp_path: Path
) -> None:
    config, result = finished
    run = tmp_path.joinpath(*Path(config.out).parts[-2:])  # the title of confusion.png has both
    shutil.copytree(config.out, run)
    for name in ("result.json", "student.safetensors", "student.json", "confusion.png"):
        (run / name).unlink()
    moved = config.model_copy(update={"out": str(run)})
    again = finetune(moved)
    assert again.evaluation == result.evaluation
    for name in ("student.safetensors", "confusion.png"):
        assert (run / name).read_bytes() == (Path(config.out) / name).read_bytes()


def rejected_inputs(tmp_path: Path) -> Iterable[tuple[dict[str, Any], type[Exception], str]]:
    """Changes of the configuration with the error that each raises."""
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    finetuned = save_distilled(tmp_path / "finetuned", trained_by="finetune")
    other = save_distilled(tmp_path / "other")
    tensors = load_file(other / "student.safetensors")
    torch.save({k: v for k, v in tensors.items() if "blocks.3" not in k}, tmp_path / "part.pth")
    yield {"student": None}, ConfigError, "does not name the network"
    yield {"init": f"inflated:{tmp_path}/resnet18.pth"}, ConfigError, "cannot be inflated"
    yield {"init": f"distinit:{tmp_path}/gone"}, CheckpointError, "no student at"
    yield {"init": f"distinit:{finetuned}"}, CheckpointError, "is not a distilled student"
    yield (
        {"init": f"distinit:{other}", "student": {"name": "r3d_18"}},
        CheckpointError,
        "holds another network",
    )
    grey = {"clip": {**CLIP, "mean": (0.5,), "std": (0.2,)}}
    yield grey, ConfigError, "mean and std"
    yield {"dataset": {"root": str(tmp_path / "gone")}}, DatasetError, "no dataset at"
    yield {"clip": {"crop": 200}}, FrameStoreError, "smaller than the crop"


def test_wrong_inputs_are_rejected_before_anything_is_written(
    finished: object, configure: Callable[..., FinetuneConfig], tmp_path: Path
) -> None:
    for number, (values, error, message) in enumerate(rejected_inputs(tmp_path)):
        with pytest.raises(error, match=message):
            finetune(configure(tmp_path / f"run{number}", **values))
        # The corrected command can use the same folder.
        assert not (tmp_path / f"run{number}" / "run.json").exists()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, SCRATCH_OPTIMIZER),
        ({"init": "distinit:x"}, FINETUNE_OPTIMIZER),
        ({"init": "inflated"}, FINETUNE_OPTIMIZER),
        (
            {"init": "distinit:x", "optimizer": {"epochs": 3}},
            FINETUNE_OPTIMIZER.model_copy(update={"epochs": 3, "step_epochs": 1}),
        ),
    ],
)
def test_the_default_schedule_depends_on_the_init(values: dict[str, Any], expected: object) -> None:
    config = FinetuneConfig.model_validate({"dataset": {"root": "d"}, "out": "o"} | values)
    assert config.optimizer == expected
    assert FinetuneConfig.model_validate(config.model_dump()) == config
    assert (SCRATCH_OPTIMIZER.learning_rate, SCRATCH_OPTIMIZER.epochs) == (0.01, 45)
    assert (FINETUNE_OPTIMIZER.learning_rate, FINETUNE_OPTIMIZER.epochs) == (0.002, 32)


def test_a_killed_run_resumes_with_the_same_loss_curve(
    configure: Callable[..., FinetuneConfig], tmp_path: Path
) -> None:
    changes = {"optimizer": {"learning_rate": 0.02, "epochs": 4, "clips_per_epoch": 96}}
    whole = configure(tmp_path / "whole", **changes)
    expected = finetune(whole).evaluation
    cut = configure(tmp_path / "cut", **changes)
    code = (
        "import sys; from distinit.schemas.finetune import FinetuneConfig; "
        "from distinit.stages.finetune import finetune; "
        "finetune(FinetuneConfig.model_validate_json(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, cut.model_dump_json(exclude_unset=True)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    metrics = tmp_path / "cut" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= 4:
            break
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (tmp_path / "cut" / "result.json").exists(), "killed too late, after the run ended"
    assert finetune(cut).evaluation == expected
    curves = [
        [(line["step"], line["loss"]) for line in map(json.loads, path.read_text().splitlines())]
        for path in (metrics, tmp_path / "whole" / "metrics.jsonl")
    ]
    assert curves[0] == curves[1]
