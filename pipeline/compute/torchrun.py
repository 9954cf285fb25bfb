"""The processes that torchrun has started for one command: rank 0 runs it, the others help it.

They talk through the key-value store that torchrun keeps for them. It answers as long as torchrun
itself lives, on the first node.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

from distinit.schemas.errors import ConfigError

__all__ = [
    "Launch",
    "Peers",
    "helped_by_others",
    "launched",
    "peers",
    "refuse_python_calls",
    "refuse_several_processes",
]

POLL_SECONDS = 0.1
_MARK = "TORCHELASTIC_RUN_ID"  # only torchrun sets it; other launchers set RANK and WORLD_SIZE too
_TRAINING_COMMANDS = ("distill", "finetune")
_HELPED: ContextVar[bool] = ContextVar("helped", default=False)


@dataclass(frozen=True, slots=True)
class Launch:
    """This process among those that torchrun has started."""

    rank: int
    local_rank: int
    """Its number on this node, and that of its GPU."""
    world_size: int


def launched() -> Launch | None:
    """The place of this process among those of torchrun; None if torchrun has not started it."""
    if _MARK not in os.environ:
        return None
    return Launch(*(int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")))


def refuse_several_processes(command: str) -> None:
    """Raise ConfigError if torchrun has started several processes of a command without training."""
    launch = launched()
    if launch is None or launch.world_size == 1 or command in _TRAINING_COMMANDS:
        return
    raise ConfigError(
        f"torchrun has started several processes of `distinit {command}`, which needs one",
        expected="torchrun with distill or finetune",
        found=f"{launch.world_size} processes",
        remedy=f"run `distinit {command}` without torchrun",
    )


@contextmanager
def helped_by_others() -> Iterator[None]:
    """The context of a command of rank 0, which the other ranks help."""
    token = _HELPED.set(True)
    try:
        yield
    finally:
        _HELPED.reset(token)


def refuse_python_calls(launch: Launch) -> None:
    """Raise ConfigError if no command of rank 0 runs, so that the other ranks would not help it."""
    if launch.world_size > 1 and not _HELPED.get():
        raise ConfigError(
            "torchrun has started several processes of a program that calls DistInit",
            expected="torchrun with the command `distinit distill` or `distinit finetune`",
            found=f"a call from Python in {launch.world_size} processes",
            remedy="start the command with torchrun (docs/slurm.md), or the program without it",
        )


class Peers:
    """What the processes of one launch tell each other. Each value is written once."""

    def __init__(self) -> None:
        from torch.distributed.rendezvous import rendezvous

        connect: Callable[[str], Any] = rendezvous
        self.store, _, _ = next(connect("env://"))

    def tell(self, key: str, value: Any) -> None:
        """Publish a JSON value for all processes."""
        self.store.set(f"distinit/{key}", json.dumps(value))

    def told(self, key: str) -> Any:
        """The value of ``key``, or None if no process has told it yet.

        Raises RuntimeError if torchrun, which keeps the values, is gone.
        """
        name = f"distinit/{key}"
        return json.loads(self.store.get(name)) if self.store.check([name]) else None

    def wait(self, key: str, seconds: float) -> Any:
        """As ``told``, but wait for the value."""
        deadline = time.monotonic() + seconds
        while (value := self.told(key)) is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return value

    def end(self, code: int) -> None:
        """Let the other processes exit with ``code``."""
        with suppress(RuntimeError):  # without torchrun they end by themselves
            self.tell("ended", int(code))

    def end_code(self) -> int | None:
        """The exit code of rank 0, once its command has ended."""
        code = self.told("ended")
        return None if code is None else int(code)


@cache
def peers() -> Peers:
    """The peers of this process, which must have been started by torchrun."""
    return Peers()
