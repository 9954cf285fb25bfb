"""What a user is told when Ray cannot be started or reached, and what is left as it was."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import pytest
import ray

from distinit.pipeline.compute import ray_cluster
from distinit.pipeline.compute.ray_cluster import ensure_ray
from distinit.schemas.compute import ComputeConfig
from distinit.schemas.errors import ComputeError

TIMED_OUT = (
    "The current node timed out during startup. This could happen because some of the raylet "
    "failed to startup or the GCS has become overloaded."
)


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a Ray session of other tests, nor an address, nor a process that watches over Ray."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_cluster, "watch_over_children", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def handler() -> Iterator[object]:
    """The handler of SIGTERM that is set during the test."""

    def handle(_number: int, _frame: FrameType | None) -> None: ...

    before = signal.signal(signal.SIGTERM, handle)
    yield handle
    signal.signal(signal.SIGTERM, before)


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let ``ray.init`` replace the handler of SIGTERM, as it does, and then raise ``error``."""

    def init(**_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise error

    monkeypatch.setattr(ray, "init", init)


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (Exception(f"{TIMED_OUT}\nmore lines"), TIMED_OUT),  # Ray raises Exception itself
        (ConnectionError("ray.init() could not connect"), "ray.init() could not connect"),
        (RuntimeError(), "no reason given"),
    ],
)
@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_a_ray_that_does_not_start_is_one_message(
    monkeypatch: pytest.MonkeyPatch,
    handler: object,
    error: Exception,
    found: str,
    address: str | None,
) -> None:
    failing(monkeypatch, error)
    with pytest.raises(ComputeError) as caught:
        ensure_ray(ComputeConfig(workers=2, ray_address=address))
    raised = caught.value
    assert raised.problem == "Ray could not be started or reached"
    assert (raised.expected, raised.found) == (address or "a local Ray", found)
    remedy = "run the command again if the machine was busy, check --ray-address (`ray status`), "
    assert raised.remedy == remedy + "or use --workers 0 to run without Ray"
    assert raised.__cause__ is error
    assert signal.getsignal(signal.SIGTERM) is handler


def test_ctrl_c_while_ray_starts_is_not_an_error_of_ray(
    monkeypatch: pytest.MonkeyPatch, handler: object
) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        ensure_ray(ComputeConfig(workers=2))
    assert signal.getsignal(signal.SIGTERM) is handler
