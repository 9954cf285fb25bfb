"""The GPU benchmark on the CPU: its arithmetic and its goals."""

from __future__ import annotations

import dataclasses
import json

import gpu
import pytest
import torch
from click.testing import CliRunner


def test_ratios_follow_from_the_rates_of_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tiny = dataclasses.replace(gpu.SIZES["cpu"], seconds=0.05, image_batch=2, videos=4)
    monkeypatch.setitem(gpu.SIZES, "cpu", tiny)
    result = CliRunner().invoke(gpu.main, ["--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    (images,) = found["extraction"]
    assert images["network"] == "resnet18"
    assert images["pinned_of_resident"] == pytest.approx(images["pinned"] / images["resident"])
    (clips,) = found["training"]
    assert (clips["frames"], clips["batch"]) == (8, 4)
    assert clips["resident_of_plain"] == pytest.approx(clips["resident"] / clips["plain"])
    assert clips["fed_of_resident"] == pytest.approx(clips["fed"] / clips["resident"])
    assert 0 < clips["of_matrix_rate"] < 1
    assert "kernels" not in clips  # there are none on a CPU


def test_a_goal_is_met_at_its_exact_value_and_missed_just_beyond() -> None:
    at = {"fed_of_resident": 0.95, "resident_of_plain": 0.97, "syncs": 0, "fed": 1.0}
    assert gpu.verdicts(at) == dict.fromkeys(
        ["fed_of_resident", "resident_of_plain", "syncs"], True
    )
    beyond = {"pinned_of_resident": 0.89, "files_of_slower": 0.89, "syncs": 1}
    assert gpu.verdicts(beyond) == dict.fromkeys(beyond, False)
    assert "0.890  (goal 0.9: MISSED)" in gpu.describe(beyond)
