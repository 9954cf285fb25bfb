"""A run directory belongs to one configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distinit.pipeline.training.run_dir import open_run
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import RunMismatchError
from distinit.schemas.training import StudentConfig

WHERE = frozenset({"cache", "frames"})


def config(**extra: Any) -> DistillConfig:
    return DistillConfig.model_validate({"cache": "c", "frames": "f", "out": "o", **extra})


def test_the_same_configuration_takes_it_up_again(tmp_path: Path) -> None:
    first = open_run(tmp_path / "run", "distill", config(), {"cache": "1"}, WHERE)
    again = open_run(tmp_path / "run", "distill", config(), {"cache": "1"}, WHERE)
    assert again.record == first.record
    assert first.record.config["optimizer"]["epochs"] == 45


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
def test_where_and_how_it_runs_may_change(tmp_path: Path, change: dict[str, Any]) -> None:
    first = open_run(tmp_path, "distill", config(), {"cache": "1"}, WHERE)
    again = open_run(tmp_path, "distill", config(**change), {"cache": "1"}, WHERE)
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
def test_another_configuration_is_refused_with_its_differences(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    open_run(tmp_path, "distill", config(), {"cache": "1"}, WHERE)
    with pytest.raises(RunMismatchError) as caught:
        open_run(tmp_path, "distill", config(**change), {"cache": "1"}, WHERE)
    assert named in str(caught.value)


def test_other_inputs_or_another_kind_are_refused(tmp_path: Path) -> None:
    open_run(tmp_path, "distill", config(), {"cache": "1"}, WHERE)
    with pytest.raises(RunMismatchError, match=r"inputs.cache: 1 there, 2 now"):
        open_run(tmp_path, "distill", config(), {"cache": "2"}, WHERE)
    with pytest.raises(RunMismatchError, match="kind: distill there, finetune now"):
        open_run(tmp_path, "finetune", config(), {"cache": "1"}, WHERE)


def test_metrics_leave_a_torn_line_out(tmp_path: Path) -> None:
    run = open_run(tmp_path, "distill", config(), {})
    assert run.read_metrics() == []
    assert run.last_metric() is None
    run.metrics.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert run.read_metrics() == [{"step": 1}, {"step": 2}]
    assert run.last_metric() == {"step": 2}


def test_result_round_trip_and_damage(tmp_path: Path) -> None:
    run = open_run(tmp_path, "distill", config(), {})
    assert run.read_result(StudentConfig) is None
    run.write_result(StudentConfig(name="s3d"))
    assert run.read_result(StudentConfig) == StudentConfig(name="s3d")
    run.result.write_text("{")
    with pytest.raises(RunMismatchError, match="cannot be read"):
        run.read_result(StudentConfig)
