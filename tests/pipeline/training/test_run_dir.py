"""A run directory belongs to one configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from distinit.pipeline.lock import WriterLock
from distinit.pipeline.training.run_dir import WANDB_NAME, open_run
from distinit.schemas.base import fields_added_later, fields_outside_identity
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError, LockedError, RunMismatchError, StorageError
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.training import StudentConfig


def config(**extra: Any) -> DistillConfig:
    return DistillConfig.model_validate({"cache": "c", "frames": "f", "out": "o", **extra})


def begin(root: Path) -> None:
    """Make the run in ``root`` one that has trained a step."""
    (root / "metrics.jsonl").write_text('{"step": 1}\n')


@pytest.mark.parametrize("leftover", ["thresholds.json", "metrics.jsonl", "checkpoints"])
def test_a_run_that_has_not_begun_is_replaced_by_another_configuration(
    tmp_path: Path, leftover: str
) -> None:
    first = open_run(tmp_path, "distill", config(), {"cache": "1"})
    path = tmp_path / leftover
    if leftover == "checkpoints":
        path.mkdir()
    else:
        path.touch()
    (tmp_path / WANDB_NAME).touch()
    other = config(optimizer={"epochs": 3})
    second = open_run(tmp_path, "distill", other, {"cache": "2"})
    assert open_run(tmp_path, "distill", other, {"cache": "2"}).record == second.record
    assert second.record.config["optimizer"]["epochs"] == 3
    assert not (tmp_path / WANDB_NAME).exists()  # its run there is another one too
    second.refuse_replaced()
    with pytest.raises(RunMismatchError, match="another command has begun another run"):
        first.refuse_replaced()


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints/step-000000001/x", "result.json"])
def test_a_run_that_has_begun_is_not_replaced(tmp_path: Path, name: str) -> None:
    first = open_run(tmp_path, "distill", config(), {})
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(RunMismatchError, match="belongs to another configuration") as caught:
        open_run(tmp_path, "distill", config(optimizer={"epochs": 3}), {})
    assert caught.value.remedy == "choose another --out, or restore these settings"
    first.refuse_replaced()


def test_a_run_that_another_process_holds_is_not_replaced(tmp_path: Path) -> None:
    open_run(tmp_path, "distill", config(), {})
    with WriterLock(tmp_path / ".lock"), pytest.raises(LockedError):
        open_run(tmp_path, "distill", config(optimizer={"epochs": 3}), {})


def test_the_same_configuration_reopens_the_run(tmp_path: Path) -> None:
    first = open_run(tmp_path / "run", "distill", config(), {"cache": "1"})
    again = open_run(tmp_path / "run", "distill", config(), {"cache": "1"})
    assert again.record == first.record
    assert first.record.config["optimizer"]["epochs"] == 45


def test_a_run_in_a_relative_folder_is_the_same_in_another_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rebuild, arguments = open_run(Path("run"), "distill", config(), {}).__reduce__()
    monkeypatch.chdir("/")
    assert rebuild(*arguments).root == tmp_path / "run"


@pytest.mark.parametrize(
    ("losses", "unit"), [(["cross_entropy"], "nats"), (["kl"], "nats"), (["kl", "mse"], "")]
)
def test_a_loss_that_is_a_distance_has_no_unit(
    losses: list[str], unit: str, tmp_path: Path
) -> None:
    targets = [{"teacher": loss, "loss": loss, "average": "logits"} for loss in losses]
    assert open_run(tmp_path / "run", "distill", config(targets=targets), {}).loss_unit == unit


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    root = tmp_path / "run"
    open_run(root, "distill", config(), {"cache": "1"})
    (root / "result.json.0a1b2c3d.partial").write_bytes(b"half")
    open_run(root, "distill", config(), {"cache": "1"})
    assert [path.name for path in root.iterdir()] == ["run.json"]


def test_the_digest_of_a_configuration_changes_only_with_what_it_trains(tmp_path: Path) -> None:
    """Runs of earlier versions can be resumed while these digests stay the same.

    They last changed with ``optimizer.decay_biases``, whose default changed training, and with
    ``label_smoothing``, ``dropout``, and ``evaluation.average`` and ``precision`` of finetuning.
    """
    distill = config(
        student={"name": "r3d_18"},
        optimizer={"clips_per_epoch": 1_000_000},
        targets=[{"loss": "cross_entropy"}],  # what auto becomes before a run is opened
    )
    finetune = FinetuneConfig.model_validate(
        {
            "dataset": {"root": "d", "splits": "s"},
            "init": "distinit:r",
            "out": "o",
            "student": {"name": "r3d_18"},
            "frames": "x",
            "optimizer": {"epochs": 8, "clips_per_epoch": 40_000},
        }
    )
    inputs = {"data": "1" * 64}
    first = open_run(tmp_path / "distill", "distill", distill, inputs)
    second = open_run(tmp_path / "finetune", "finetune", finetune, inputs)
    assert [first.record.config_digest, second.record.config_digest] == [
        "1dc71860bccdb2235fc9b52fd19e59c99b0c0a1ec70b97869a76fdfffb6a1494",
        "657246509dbb262aab38d302633161ae55946df682d2394de967e0808b9861ef",
    ]


ADDED_LATER = {
    "optimizer.name": "sgd",
    "optimizer.betas": [0.9, 0.999],
    "optimizer.eps": 1e-8,
    "optimizer.decay_norms": True,
    "optimizer.warmup_start_factor": 0.0,
    "optimizer.cosine_end_factor": 0.0,
    "runtime.reduction": "auto",
}


def test_a_run_of_a_version_without_a_setting_is_reopened_only_with_its_default(
    tmp_path: Path,
) -> None:
    assert fields_added_later(DistillConfig) == ADDED_LATER
    assert fields_added_later(FinetuneConfig) == ADDED_LATER
    run = open_run(tmp_path / "run", "distill", config(), {})
    begin(run.root)
    path = run.root / "run.json"
    earlier = json.loads(path.read_text())
    for name in ADDED_LATER:
        section, _, key = name.partition(".")
        del earlier["config"][section][key]
    path.write_text(json.dumps(earlier))
    assert open_run(run.root, "distill", config(), {}).record.config == earlier["config"]
    for section, change in (
        ("optimizer", {"warmup_start_factor": 0.5}),
        ("optimizer", {"name": "adamw", "learning_rate": 0.01}),
        ("runtime", {"reduction": "exact"}),
    ):
        with pytest.raises(RunMismatchError) as caught:
            open_run(run.root, "distill", config(**{section: change}), {})
        name, value = next(iter(change.items()))
        assert f"{section}.{name}: absent there, {value} now" in str(caught.value)


def test_fields_outside_the_identity_of_a_finetune_run() -> None:
    own = {"dataset.root", "dataset.splits", "frames", "flow", "init", "out", "eval_every"}
    outside = fields_outside_identity(FinetuneConfig)
    assert {name for name in outside if not name.startswith("runtime.")} == own
    assert "runtime.seed" not in outside
    assert "runtime.workers" in outside


@pytest.mark.parametrize(
    "change",
    [
        {"cache": "elsewhere"},
        {"frames": "elsewhere"},
        {"out": "elsewhere"},
        {"runtime": {"workers": 2, "loader_workers": 3, "device": "cpu", "gpus_per_worker": 1}},
        {"runtime": {"checkpoint_seconds": 1, "checkpoint_steps": 5, "keep_checkpoints": 9}},
        {"runtime": {"compile": True}},
    ],
)
def test_fields_outside_the_identity_may_change(tmp_path: Path, change: dict[str, Any]) -> None:
    first = open_run(tmp_path, "distill", config(), {"cache": "1"})
    again = open_run(tmp_path, "distill", config(**change), {"cache": "1"})
    assert again.record.config_digest == first.record.config_digest


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"optimizer": {"learning_rate": 0.5}}, "optimizer.learning_rate: 0.01 there, 0.5 now"),
        ({"runtime": {"batch_size": 8}}, "runtime.batch_size: 32 there, 8 now"),
        ({"runtime": {"seed": 8}}, "runtime.seed"),
        ({"runtime": {"precision": "bf16"}}, "runtime.precision"),
        ({"targets": [{"pick": "center"}]}, "targets.0.pick: random there, center now"),
    ],
)
def test_the_error_for_another_configuration_names_the_differences(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    open_run(tmp_path, "distill", config(), {"cache": "1"})
    begin(tmp_path)
    with pytest.raises(RunMismatchError) as caught:
        open_run(tmp_path, "distill", config(**change), {"cache": "1"})
    assert named in str(caught.value)


def test_other_inputs_or_another_kind_are_rejected(tmp_path: Path) -> None:
    open_run(tmp_path, "distill", config(), {"cache": "1"})
    begin(tmp_path)
    with pytest.raises(RunMismatchError, match=r"inputs.cache: 1 there, 2 now"):
        open_run(tmp_path, "distill", config(), {"cache": "2"})
    with pytest.raises(RunMismatchError, match="kind: distill there, finetune now"):
        open_run(tmp_path, "finetune", config(), {"cache": "1"})


def test_a_metric_line_that_is_cut_off_is_skipped(tmp_path: Path) -> None:
    run = open_run(tmp_path, "distill", config(), {})
    assert run.read_metrics() == []
    assert run.last_metric() is None
    run.metrics.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert run.read_metrics() == [{"step": 1}, {"step": 2}]
    assert run.last_metric() == {"step": 2}


def test_a_result_is_read_back_and_a_damaged_one_refused(tmp_path: Path) -> None:
    run = open_run(tmp_path, "distill", config(), {})
    assert run.read_result(StudentConfig) is None
    run.write_result(StudentConfig(name="s3d"))
    assert run.read_result(StudentConfig) == StudentConfig(name="s3d")
    run.result.write_text("{")
    with pytest.raises(RunMismatchError, match="cannot read"):
        run.read_result(StudentConfig)


def test_lines_that_are_not_metric_lines_are_skipped(tmp_path: Path) -> None:
    run = open_run(tmp_path, "distill", config(), {})
    lines = [
        b'{"step": 1, "loss": 0.5}',
        b'{"step": "2"}',
        b'{"step": -1}',
        b'{"loss": 1.0}',
        b'{"step": 2, "loss": NaN}',
        b'{"step": 2, "loss": 1e999}',
        b'{"step": 2, "loss": "\\ud800"}',
        b'{"step": 2, "step": 3}',
        b'{"step": 2, "loss": null}',
        b"[1]",
        b"\xff\xfe",
        b"[" * 5000,
        b'{"step": 3, "loss": 0.25}',
        b"not whole",
    ]
    run.metrics.write_bytes(b"\n".join(lines))
    assert run.read_metrics() == [{"step": 1, "loss": 0.5}, {"step": 3, "loss": 0.25}]
    assert run.last_metric() == {"step": 3, "loss": 0.25}
    run.metrics.write_bytes(b"x" * 100_000)
    assert (run.read_metrics(), run.last_metric()) == ([], None)
    with run.metrics.open("wb") as file:
        file.truncate(1 << 40)
    assert run.last_metric() is None
    with pytest.raises(StorageError, match="cannot read"):
        run.read_metrics()


@pytest.mark.parametrize(
    "name",
    ["run.json", "metrics.jsonl", "loss.png", "result.json", ".lock", "student.json", "load.json"],
)
def test_a_link_in_a_run_is_never_written_through(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    root = tmp_path / "run"
    root.mkdir()
    (root / name).symlink_to(victim)
    with pytest.raises(StorageError, match="holds a link") as caught:
        open_run(root, "distill", config(), {})
    assert caught.value.found == f"{name} -> {victim}"
    assert victim.read_text() == "precious"
    assert [path.name for path in root.iterdir()] == [name]


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "ray", "frames/units"])
def test_a_link_in_place_of_a_folder_of_a_run_is_rejected(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim" / "step-000000001"
    victim.mkdir(parents=True)
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    (tmp_path / "run" / name).symlink_to(victim.parent)
    with pytest.raises(StorageError, match="holds a link"):
        open_run(tmp_path / "run", "distill", config(), {})
    assert victim.is_dir()


def test_a_pipe_in_a_run_is_rejected_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(StorageError, match="a special file"):
        open_run(tmp_path, "distill", config(), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "does not read"),
        ({"format": "something"}, "does not read"),
        ({"kind": 3}, "not a valid RunRecord"),
        ({"extra": 3}, "not a valid RunRecord"),
    ],
)
def test_a_run_of_another_version_is_rejected(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run = open_run(tmp_path, "distill", config(), {})
    path = run.root / "run.json"
    assert json.loads(path.read_text())["format_version"] == 1
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunMismatchError, match=message):
        open_run(tmp_path, "distill", config(), {})


def test_the_message_about_many_differences_is_short(tmp_path: Path) -> None:
    inputs = {f"n{i}": "x" * 1000 for i in range(1000)}
    open_run(tmp_path, "distill", config(), inputs)
    begin(tmp_path)
    with pytest.raises(RunMismatchError) as caught:
        open_run(tmp_path, "distill", config(), {})
    assert len(str(caught.value)) < 6000


@pytest.mark.parametrize("out", ["store", "store/run"])
def test_a_run_directory_inside_a_frame_store_is_rejected(tmp_path: Path, out: str) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "store.json").touch()
    with pytest.raises(ConfigError, match="nothing else is written there"):
        open_run(tmp_path / out, "finetune", config(), {})
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["store.json"]
