"""The benchmark of vocabularies on tiny inputs: the ratio, and what is measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import vocabulary
from click.testing import CliRunner

from distinit.pipeline.distillation.task import open_distill_task

TINY = {"student": "tiny_r2plus1d_10", "batch": 2, "crop": 16, "device": "cpu"}


def test_the_ratio_follows_from_the_times_of_one_run() -> None:
    options = [part for name, value in TINY.items() for part in (f"--{name}", str(value))]
    result = CliRunner().invoke(vocabulary.main, [*options, "--repetitions", "1", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert list(found) == ["center", "all"]
    for row in found.values():
        assert row["look_up_percent"] == pytest.approx(100 * row["look_up_ms"] / row["step_ms"])
        assert row["shortest_step_ms"] == pytest.approx(50 * row["look_up_ms"])


def test_the_look_up_has_the_size_of_the_goal_and_both_precisions_agree(tmp_path: Path) -> None:
    vocabulary.write_inputs(tmp_path, 16)
    path = tmp_path / "vocabulary.safetensors"
    target = {"teacher": "features", "vocabulary": str(path), "pick": "center"}
    task = open_distill_task(vocabulary.config_of(tmp_path, target, **TINY))
    assert task.cache.teachers["features"].identity.classes == 512
    (head,) = task.heads
    assert (head.name, head.outputs) == ("features@vocabulary", 1_000)
    fp64, fp32 = (np.asarray(work()) for work in vocabulary.logits_of(path, 3).values())
    assert fp64.shape == fp32.shape == (3, 1_000)
    assert np.abs(fp64 - fp32).max() < 1e-4
    assert not np.array_equal(fp64, fp32)


def test_a_table_says_whether_the_goal_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    times = dict.fromkeys(("step_ms", "stored_ms", "fp64_ms", "fp32_ms", "shortest_step_ms"), 1.0)
    rows = {"center": times | {"look_up_ms": 0.02, "look_up_percent": 2.0}}
    rows["all"] = times | {"look_up_ms": 0.03, "look_up_percent": 3.0}
    vocabulary.show(rows, "student", 4)
    _, _, center, every = capsys.readouterr().out.splitlines()
    assert center.endswith("2.000 (goal: at most 2; met)")
    assert every.endswith("3.000 (goal: at most 2; MISSED)")
