"""Checkpoints: whole or absent, checked, limited in number."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from distinit.pipeline.training.checkpoint import CheckpointStore
from distinit.pipeline.training.collective import Alone
from distinit.pipeline.training.step import Stepper
from distinit.schemas.run import CheckpointRecord


def record(step: int) -> CheckpointRecord:
    return CheckpointRecord(
        config_digest="",
        epoch=1,
        step=2,
        global_step=step,
        window={"loss": 0.1},
        window_steps=3,
        files={},
    )


@pytest.fixture
def stepper(toys: ModuleType) -> Stepper:
    task = toys.ToyTask()
    stepper = Stepper(task.build(), task, toys.make_settings(), Alone(), torch.device("cpu"))
    stepper.step([(0, task.load(0, np.arange(4)))], 0, 0.1)
    return stepper


def test_round_trip_of_weights_and_momentum(
    toys: ModuleType, stepper: Stepper, tmp_path: Path
) -> None:
    store = CheckpointStore(tmp_path, "digest", keep=2)
    folder = store.save(record(7), stepper.student, stepper.optimizer)
    found = store.latest(lambda text: pytest.fail(text))
    assert found is not None
    assert found[0] == folder == tmp_path / "step-000000007"
    assert found[1].window == {"loss": 0.1}
    assert found[1].config_digest == "digest"
    task = toys.ToyTask(seed=1)
    other = Stepper(task.build(), task, toys.make_settings(), Alone(), torch.device("cpu"))
    store.restore(folder, other.student, other.optimizer)
    for name, tensor in stepper.student.state_dict().items():
        assert torch.equal(other.student.state_dict()[name], tensor)
    pairs = zip(other.student.parameters(), stepper.student.parameters(), strict=True)
    for mine, theirs in pairs:
        expected = stepper.optimizer.state[theirs]["momentum_buffer"]
        assert torch.equal(other.optimizer.state[mine]["momentum_buffer"], expected)


def test_the_newest_are_kept(stepper: Stepper, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "digest", keep=2)
    for step in (1, 2, 999999999, 1000000000):
        store.save(record(step), stepper.student, stepper.optimizer)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-1000000000", "step-999999999"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", b"cut"),
        ("optimizer.safetensors", None),
        ("checkpoint.json", b"{}"),
    ],
)
def test_a_damaged_one_is_passed_over(
    stepper: Stepper, tmp_path: Path, name: str, damage: bytes | None
) -> None:
    store = CheckpointStore(tmp_path, "digest", keep=3)
    for step in (1, 2):
        store.save(record(step), stepper.student, stepper.optimizer)
    path = tmp_path / "step-000000002" / name
    path.unlink() if damage is None else path.write_bytes(damage)
    messages: list[str] = []
    found = store.latest(messages.append)
    assert found is not None
    assert found[1].global_step == 1
    assert len(messages) == 1
    assert "step-000000002" in messages[0]
    store.save(record(2), stepper.student, stepper.optimizer)
    assert store.latest(pytest.fail)[1].global_step == 2  # type: ignore[index]


def test_what_a_killed_writer_left_is_not_a_checkpoint(stepper: Stepper, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "digest", keep=3)
    folder = store.save(record(5), stepper.student, stepper.optimizer)
    folder.rename(folder.with_name(folder.name + ".partial"))
    assert store.latest(pytest.fail) is None
    store.save(record(5), stepper.student, stepper.optimizer)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000005"]


def test_a_checkpoint_of_another_configuration_is_not_taken_up(
    stepper: Stepper, tmp_path: Path
) -> None:
    CheckpointStore(tmp_path, "one", 2).save(record(1), stepper.student, stepper.optimizer)
    messages: list[str] = []
    assert CheckpointStore(tmp_path, "two", 2).latest(messages.append) is None
    assert "another configuration" in messages[0]
