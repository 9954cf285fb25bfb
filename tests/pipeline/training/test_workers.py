"""Any number of real processes in a gloo group, as with Ray Train, trains the same student."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import toys
from safetensors.torch import load_file
from torch import Tensor

from distinit.pipeline.training.clips import to_clip

WORKER = Path(__file__).with_name("gloo_worker.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Tensor]]]:
    """The tensors, gradients and losses of every worker at the end of each job."""
    root = tmp_path_factory.mktemp("workers")
    norm = {"shards": 4, "steps": 12, "dtype": "float32", "norm": True, "optimizer": {}}
    adamw = norm | {"optimizer": {"name": "adamw", "weight_decay": 0.05}}
    overlapped = {"reduction": "overlapped"}
    jobs = {
        "one": norm | {"world": 1},
        "two": norm | {"world": 2},
        "four": norm | {"world": 4},
        "adamw one": adamw | {"world": 1},
        "adamw two": adamw | {"world": 2},
        "adamw four": adamw | {"world": 4},
        "overlapped one": norm | overlapped | {"world": 1},
        "overlapped two": norm | overlapped | {"world": 2},
        "overlapped four": norm | overlapped | {"world": 4},
        "overlapped first": norm | overlapped | {"world": 4, "steps": 1},
        "exact first": norm | {"world": 1, "steps": 1},
        "joint": norm | {"shards": 2, "steps": 1, "dtype": "float64", "norm": False, "world": 2},
    }
    for name in jobs:
        (root / name).mkdir()
    listed = [job | {"folder": str(root / name)} for name, job in jobs.items()]
    subprocess.run([sys.executable, WORKER, json.dumps(listed)], check=True)
    return {
        name: [load_file(root / name / f"{rank}.safetensors") for rank in range(job["world"])]
        for name, job in jobs.items()
    }


@pytest.mark.parametrize("optimizer", ["", "adamw "])
def test_one_two_and_four_workers_train_the_same_student_bit_by_bit(
    trained: dict[str, list[dict[str, Tensor]]], optimizer: str
) -> None:
    (one,) = trained[f"{optimizer}one"]
    assert one["losses"].unique().numel() == 12
    for worker in (*trained[f"{optimizer}two"], *trained[f"{optimizer}four"]):
        assert worker.keys() == one.keys()
        for name, tensor in one.items():
            assert torch.equal(worker[name], tensor), name


def test_two_workers_average_the_gradient_of_the_joint_batch(
    trained: dict[str, list[dict[str, Tensor]]],
) -> None:
    task = toys.ToyTask(count=32, norm=False, dtype=torch.float64)
    student = task.build()
    batch = task.load(0, np.random.default_rng(0).permutation(32)[:8])
    clip = to_clip(batch.pixels_BTCHW, batch.flip_B, toys.make_settings().clip, torch.float64)
    loss, _ = task.loss(student(clip), batch.targets)
    loss.backward()
    assert len(trained["joint"]) == 2
    for worker in trained["joint"]:
        assert abs(worker["losses"][0].item() - loss.item()) < 1e-12
        for name, parameter in student.named_parameters():
            assert (worker[f"grad.{name}"] - parameter.grad).abs().max() <= 1e-9, name


def test_overlapped_workers_train_the_student_of_the_exact_reduction(
    trained: dict[str, list[dict[str, Tensor]]],
) -> None:
    (exact,) = trained["one"]
    for world, count in {"one": 1, "two": 2, "four": 4}.items():
        workers = trained[f"overlapped {world}"]
        assert len(workers) == count
        for worker in workers:
            for name, tensor in exact.items():
                torch.testing.assert_close(
                    worker[name], tensor, rtol=1e-4, atol=1e-6, check_dtype=False
                )
                assert torch.equal(worker[name], workers[0][name]), name


def test_overlapped_workers_have_the_gradients_of_the_exact_reduction(
    trained: dict[str, list[dict[str, Tensor]]],
) -> None:
    (exact,) = trained["exact first"]
    names = [name for name in exact if name.startswith("grad.")]
    assert len(names) == 6
    for worker in trained["overlapped first"]:
        for name in names:
            difference = (worker[name] - exact[name]).norm() / exact[name].norm()
            assert difference.item() <= 1e-6, name
