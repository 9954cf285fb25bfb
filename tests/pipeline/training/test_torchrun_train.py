"""What a configuration means under torchrun. tests/stages/test_torchrun.py starts processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from distinit.pipeline.compute.torchrun import Launch, helped_by_others
from distinit.pipeline.training.torchrun_train import device_of, launched_runtime
from distinit.schemas.errors import ConfigError
from distinit.schemas.training import RuntimeConfig


@pytest.fixture
def _four_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command in the first of four processes of torchrun."""
    values = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with helped_by_others():
        yield


def test_without_torchrun_nothing_changes() -> None:
    runtime = RuntimeConfig(workers=3, gpus_per_worker=1)
    assert launched_runtime(runtime) is runtime


@pytest.mark.usefixtures("_four_processes")
@pytest.mark.parametrize("workers", [0, 4])
def test_the_processes_take_the_place_of_ray_workers(workers: int) -> None:
    found = launched_runtime(RuntimeConfig(workers=workers, gpus_per_worker=1, shards=8))
    assert found == RuntimeConfig(shards=8)


@pytest.mark.usefixtures("_four_processes")
@pytest.mark.parametrize(
    ("runtime", "expected", "found"),
    [
        (RuntimeConfig(workers=2), "--workers 0, or 4 as torchrun has started", "--workers 2"),
        (
            RuntimeConfig(device="cuda:1"),
            "cuda: each process takes the GPU of its LOCAL_RANK",
            "cuda:1",
        ),
    ],
)
def test_what_contradicts_torchrun_is_refused(
    runtime: RuntimeConfig, expected: str, found: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        launched_runtime(runtime)
    assert (caught.value.expected, caught.value.found) == (expected, found)


def test_each_process_of_a_node_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    second = Launch(rank=5, local_rank=1, world_size=8)
    assert device_of(second, RuntimeConfig()) == torch.device("cuda:1")
    assert device_of(second, RuntimeConfig(device="cpu")) == torch.device("cpu")
    with pytest.raises(ConfigError, match="cuda:4"):
        device_of(Launch(rank=4, local_rank=4, world_size=8), RuntimeConfig(device="cuda"))
