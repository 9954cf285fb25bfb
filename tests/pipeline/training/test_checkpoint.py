"""Checkpoints are complete or absent, checked when loaded, and limited in number."""

from __future__ import annotations

import hashlib
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import toys
from safetensors.torch import load_file, save_file

from distinit.pipeline.training.checkpoint import CheckpointStore
from distinit.pipeline.training.collective import SingleProcess
from distinit.pipeline.training.step import Stepper
from distinit.schemas.errors import StorageError
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


def trained(steps: int, **optimizer: Any) -> Stepper:
    task = toys.ToyTask()
    settings = toys.make_settings(optimizer)
    stepper = Stepper(task.build(), task, settings, SingleProcess(), torch.device("cpu"))
    for step in range(steps):
        stepper.step([(0, task.load(0, np.arange(4)))], step, 0.1)
    return stepper


@pytest.fixture
def stepper() -> Stepper:
    return trained(1)


def test_the_whole_state_of_adamw_is_restored(tmp_path: Path) -> None:
    stepper = trained(3, name="adamw")
    store = CheckpointStore(tmp_path, "digest", keep=2)
    folder = store.save(record(3), stepper.student, stepper.optimizer)
    other = trained(0, name="adamw")
    assert store.load_latest(other.student, other.optimizer, pytest.fail) is not None
    pairs = zip(other.student.parameters(), stepper.student.parameters(), strict=True)
    for mine, theirs in pairs:
        expected, found = stepper.optimizer.state[theirs], other.optimizer.state[mine]
        assert expected["step"] == 3
        assert found.keys() == expected.keys() == {"step", "exp_avg", "exp_avg_sq"}
        for name, tensor in expected.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)
    clip = np.arange(4)
    for one in (stepper, other):
        one.step([(0, toys.ToyTask().load(0, clip))], 3, 0.1)
    for name, tensor in stepper.student.state_dict().items():
        assert torch.equal(other.student.state_dict()[name], tensor), name
    assert sorted(load_file(folder / "optimizer.safetensors"))[-1] == "step.heads.toy.weight"


def of(name: str, tensors: dict[str, torch.Tensor]) -> str:
    return next(n for n in sorted(tensors) if n.startswith(f"{name}."))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {of("step", t): torch.tensor(0.0)}, "is 0, in a checkpoint of step 2"),
        (lambda t: {of("step", t): torch.tensor(-1.0)}, "is -1, in a checkpoint of step 2"),
        (lambda t: {of("step", t): torch.tensor(2.5)}, "is 2.5, in a checkpoint of step 2"),
        (lambda t: {of("step", t): torch.tensor(3e38)}, "in a checkpoint of step 2"),
        (lambda t: {of("step", t): torch.ones(2)}, "has shape"),
        (lambda t: {of("step", t): torch.tensor(2)}, "has type"),
        (lambda t: {of("exp_avg_sq", t): -t[of("exp_avg_sq", t)] - 1}, "holds negative values"),
        (lambda t: {of("exp_avg", t): t[of("exp_avg", t)] * torch.nan}, "not finite"),
        (lambda t: {"momentum_buffer.x": torch.ones(2)}, "momentum_buffer.x is unknown"),
    ],
)
def test_an_impossible_state_of_adamw_is_refused(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], Any], message: str
) -> None:
    stepper = trained(2, name="adamw")
    store = CheckpointStore(tmp_path, "digest", keep=2)
    folder = store.save(record(2), stepper.student, stepper.optimizer)
    tensors = load_file(folder / "optimizer.safetensors")
    rewritten(folder, "optimizer.safetensors", tensors | change(tensors))
    other = trained(0, name="adamw")
    before = {n: t.clone() for n, t in other.student.state_dict().items()}
    messages: list[str] = []
    assert store.load_latest(other.student, other.optimizer, messages.append) is None
    assert message in messages[0]
    assert not other.optimizer.state
    assert all(torch.equal(before[n], t) for n, t in other.student.state_dict().items())


@pytest.mark.parametrize(("saved", "loaded"), [("sgd", "adamw"), ("adamw", "sgd")])
def test_the_state_of_another_optimiser_is_refused(tmp_path: Path, saved: str, loaded: str) -> None:
    stepper, other = trained(2, name=saved), trained(0, name=loaded)
    store = CheckpointStore(tmp_path, "digest", keep=2)
    store.save(record(2), stepper.student, stepper.optimizer)
    messages: list[str] = []
    assert store.load_latest(other.student, other.optimizer, messages.append) is None
    assert "optimizer.safetensors:" in messages[0]
    assert "is missing" in messages[0]
    assert not other.optimizer.state


def test_weights_and_momentum_are_restored(stepper: Stepper, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "digest", keep=2)
    folder = store.save(record(7), stepper.student, stepper.optimizer)
    found = store.load_latest(toys.ToyTask(seed=2).build(), None, pytest.fail)
    assert found is not None
    assert found[0] == folder == tmp_path / "step-000000007"
    assert found[1].window == {"loss": 0.1}
    assert found[1].config_digest == "digest"
    task = toys.ToyTask(seed=1)
    other = Stepper(task.build(), task, toys.make_settings(), SingleProcess(), torch.device("cpu"))
    store.restore(folder, other.student, other.optimizer)
    for name, tensor in stepper.student.state_dict().items():
        assert torch.equal(other.student.state_dict()[name], tensor)
    pairs = zip(other.student.parameters(), stepper.student.parameters(), strict=True)
    for mine, theirs in pairs:
        expected = stepper.optimizer.state[theirs]["momentum_buffer"]
        assert torch.equal(other.optimizer.state[mine]["momentum_buffer"], expected)


def test_only_the_newest_checkpoints_are_kept(stepper: Stepper, tmp_path: Path) -> None:
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
def test_a_damaged_checkpoint_is_skipped(
    stepper: Stepper, tmp_path: Path, name: str, damage: bytes | None
) -> None:
    store = CheckpointStore(tmp_path, "digest", keep=3)
    for step in (1, 2):
        store.save(record(step), stepper.student, stepper.optimizer)
    path = tmp_path / "step-000000002" / name
    path.unlink() if damage is None else path.write_bytes(damage)
    messages: list[str] = []
    found = store.load_latest(stepper.student, stepper.optimizer, messages.append)
    assert found is not None
    assert found[1].global_step == 1
    assert len(messages) == 1
    assert "step-000000002" in messages[0]
    store.save(record(2), stepper.student, stepper.optimizer)
    again = store.load_latest(stepper.student, stepper.optimizer, pytest.fail)
    assert again is not None
    assert again[1].global_step == 2


def test_the_partial_folder_of_a_killed_writer_is_not_a_checkpoint(
    stepper: Stepper, tmp_path: Path
) -> None:
    store = CheckpointStore(tmp_path, "digest", keep=3)
    folder = store.save(record(5), stepper.student, stepper.optimizer)
    (folder / "checkpoint.json.0a1b2c3d.partial").write_bytes(b"half")
    folder.rename(folder.with_name(folder.name + ".partial"))
    assert store.load_latest(stepper.student, None, pytest.fail) is None
    store.save(record(5), stepper.student, stepper.optimizer)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000005"]


def test_partial_folders_of_other_steps_are_removed(stepper: Stepper, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "digest", keep=3)
    store.save(record(5), stepper.student, stepper.optimizer).rename(
        tmp_path / "step-000000005.partial"
    )
    foreign = tmp_path / "step-000000006.partial"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    (tmp_path / "notes.partial").write_text("precious")
    store.save(record(7), stepper.student, stepper.optimizer)
    kept = {"step-000000007", "step-000000006.partial", "notes.partial"}
    assert {path.name for path in tmp_path.iterdir()} == kept


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """No file of this process can grow beyond this size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("optimizer", "file"), [("sgd", "model.safetensors"), ("adamw", "optimizer.safetensors")]
)
def test_a_full_disk_keeps_the_previous_checkpoint_and_leaves_no_other(
    tmp_path: Path, optimizer: str, file: str
) -> None:
    stepper = trained(1, name=optimizer)  # the file is the larger one with this optimiser
    store = CheckpointStore(tmp_path, "digest", keep=1)
    folder = store.save(record(1), stepper.student, stepper.optimizer)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    with file_size_limit(sizes[file] - 1), pytest.raises(StorageError) as caught:
        store.save(record(2), stepper.student, stepper.optimizer)
    assert caught.value.problem == f"cannot write {tmp_path}/step-000000002/{file}"
    assert caught.value.found == "File too large"
    assert (caught.value.remedy or "").endswith("raise it, then rerun the same command to resume")
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]
    found = store.load_latest(stepper.student, stepper.optimizer, pytest.fail)
    assert found is not None
    assert found[1].global_step == 1
    store.save(record(2), stepper.student, stepper.optimizer)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000002"]


def test_a_checkpoint_of_another_configuration_is_not_loaded(
    stepper: Stepper, tmp_path: Path
) -> None:
    CheckpointStore(tmp_path, "one", 2).save(record(1), stepper.student, stepper.optimizer)
    messages: list[str] = []
    other = CheckpointStore(tmp_path, "two", 2)
    assert other.load_latest(stepper.student, None, messages.append) is None
    assert "another configuration" in messages[0]


def rewritten(folder: Path, name: str, tensors: dict[str, torch.Tensor]) -> None:
    """Replace the tensors of a checkpoint, and update its checksum to match."""
    save_file(tensors, folder / name)
    path = folder / "checkpoint.json"
    stored = json.loads(path.read_text())
    data = (folder / name).read_bytes()
    stored["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_text(CheckpointRecord.model_validate(stored).sealed().model_dump_json())


def changes(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Ways in which an attacker may change the tensors of a file."""
    name = min(name for name, tensor in tensors.items() if tensor.ndim)
    first, rest = tensors[name], {n: t for n, t in tensors.items() if n != name}
    return {
        "int64": rest | {name: first.long()},
        "complex": rest | {name: first.to(torch.complex64)},
        "bool": rest | {name: first.bool()},
        "shape": rest | {name: torch.cat([first, first])},
        "nan": rest | {name: first * torch.nan},
        "missing": rest,
        "extra": tensors | {"another": first.clone()},
        "none": {},
    }


@pytest.mark.parametrize("change", sorted(changes({"a": torch.ones(2)})))
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_tensors_that_do_not_fit_are_skipped_even_if_the_checksum_matches(
    stepper: Stepper, tmp_path: Path, name: str, change: str
) -> None:
    store = CheckpointStore(tmp_path, "digest", keep=3)
    for step in (1, 2):
        store.save(record(step), stepper.student, stepper.optimizer)
    newest = tmp_path / "step-000000002"
    rewritten(newest, name, changes(load_file(newest / name))[change])
    before = {n: t.clone() for n, t in stepper.student.state_dict().items()}
    messages: list[str] = []
    found = store.load_latest(stepper.student, stepper.optimizer, messages.append)
    assert found is not None
    assert found[1].global_step == 1
    assert len(messages) == 1
    assert name in messages[0]
    assert all(torch.equal(before[n], t) for n, t in stepper.student.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [
        {"format_version": 2},
        {"epoch": -1},
        {"epoch": 5},
        {"step": 99},
        {"window": {"loss": 2.0}},
        {"global_step": 10**15},
        {"global_step": 1},
        {"window": {"loss": None}},
        {"files": {}},
    ],
)
def test_records_that_do_not_fit_are_skipped(
    stepper: Stepper, tmp_path: Path, change: dict[str, Any]
) -> None:
    store = CheckpointStore(tmp_path, "digest", keep=3)
    path = store.save(record(2), stepper.student, stepper.optimizer) / "checkpoint.json"
    stored = json.loads(path.read_text())
    assert stored["format_version"] == 1
    path.write_text(json.dumps(stored | change))
    messages: list[str] = []
    assert store.load_latest(stepper.student, stepper.optimizer, messages.append) is None
    assert len(messages) == 1


def test_files_of_a_checkpoint_have_the_usual_permissions(stepper: Stepper, tmp_path: Path) -> None:
    folder = CheckpointStore(tmp_path, "digest", keep=1).save(
        record(1), stepper.student, stepper.optimizer
    )
    (tmp_path / "usual").touch()
    permissions = {path.stat().st_mode for path in folder.iterdir()}
    assert permissions == {(tmp_path / "usual").stat().st_mode}


def test_only_checkpoints_are_removed(stepper: Stepper, tmp_path: Path) -> None:
    root, outside = tmp_path / "checkpoints", tmp_path / "outside"
    store = CheckpointStore(root, "digest", keep=1)
    outside.mkdir()
    (outside / "checkpoint.json").write_text("precious")
    mine, link, near = (root / f"step-00000000{n}" for n in (1, 2, 3))
    for folder in (mine, near):
        folder.mkdir(parents=True)
        (folder / "thesis.txt").write_text("precious")
    (near / "checkpoint.json").write_text("{}")
    link.symlink_to(outside)
    (root / "step-\u00b2").mkdir()
    for step in (4, 5):
        store.save(record(step), stepper.student, stepper.optimizer)
    kept = {"step-000000001", "step-000000002", "step-000000003", "step-000000005", "step-\u00b2"}
    assert {path.name for path in root.iterdir()} == kept
    assert (outside / "checkpoint.json").read_text() == "precious"
    for step, folder in ((1, mine), (2, link), (3, near)):
        with pytest.raises(StorageError, match="is in the way"):
            store.save(record(step), stepper.student, stepper.optimizer)
        assert folder.exists()
    partial = root / "step-000000006.partial"
    partial.symlink_to(outside)
    with pytest.raises(StorageError, match="is in the way"):
        store.save(record(6), stepper.student, stepper.optimizer)
    assert (mine / "thesis.txt").read_text() == (near / "thesis.txt").read_text() == "precious"
    assert [path.name for path in outside.iterdir()] == ["checkpoint.json"]


def test_a_checkpoint_that_cannot_be_replaced_ends_a_run_before_it_trains(
    tmp_path: Path, stepper: Stepper
) -> None:
    store = CheckpointStore(tmp_path, "digest", keep=2)
    folder = store.save(record(1), stepper.student, stepper.optimizer)
    (folder / "checkpoint.json").unlink()
    (folder / "checkpoint.json").mkdir()
    skipped: list[str] = []
    assert store.load_latest(stepper.student, None, skipped.append) is None
    assert len(skipped) == 1
    with pytest.raises(StorageError) as caught:
        store.load_latest(stepper.student, stepper.optimizer, pytest.fail)
    assert caught.value.problem == (
        f"{folder} is in the way: it is not a checkpoint, so it is not removed"
    )
