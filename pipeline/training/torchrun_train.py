"""Trains in the processes that torchrun has started, without Ray.

Rank 0 runs the whole command; it alone opens the run directory for writing, and prints. The other
ranks wait until it trains, get the task from it as Ray's workers get it from the driver, and end
with its exit code. A launcher ends all processes as soon as one of them fails, so a rank with an
error first tells rank 0, which reports it.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch.distributed import DistError

from distinit.pipeline.compute.device import resolve_device
from distinit.pipeline.compute.torchrun import (
    POLL_SECONDS,
    Launch,
    Peers,
    launched,
    peers,
    refuse_python_calls,
)
from distinit.pipeline.interruption import Interrupted, StopRequest, stop_on_signals
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.training.collective import ProcessGroup
from distinit.pipeline.training.error_records import error_from, error_record
from distinit.pipeline.training.run_dir import RunDirectory
from distinit.pipeline.training.task import Evaluator, TrainingSettings, TrainingTask
from distinit.pipeline.training.trainer import fit
from distinit.schemas.errors import ComputeError, ConfigError, DistInitError
from distinit.schemas.exit_codes import ExitCode
from distinit.schemas.training import RuntimeConfig

__all__ = ["device_of", "fit_with_peers", "help_rank_0", "launched_runtime"]

_LEAVE_SECONDS = 10.0  # for rank 0 to say why it ends, and for blocked ranks to end by themselves
_GROUP_TIMEOUT = timedelta(minutes=30)

type _Work = tuple[TrainingTask, Evaluator | None, TrainingSettings, RunDirectory]


def launched_runtime(runtime: RuntimeConfig) -> RuntimeConfig:
    """``runtime`` as it is meant under torchrun, whose processes take the place of Ray's workers.

    Without torchrun it is returned unchanged. Raises ConfigError if it names another number of
    workers than torchrun has started, or one GPU for all of them, or if several processes call
    from Python.
    """
    launch = launched()
    if launch is None:
        return runtime
    refuse_python_calls(launch)
    if runtime.workers not in (0, launch.world_size):
        raise ConfigError(
            "torchrun has started another number of processes than runtime.workers",
            expected=f"--workers 0, or {launch.world_size} as torchrun has started",
            found=f"--workers {runtime.workers}",
            remedy="leave out --workers, which starts Ray, or start the command without torchrun",
        )
    if launch.world_size > 1 and runtime.device.startswith("cuda:"):
        raise ConfigError(
            "runtime.device names one GPU for all processes of torchrun",
            expected="cuda: each process takes the GPU of its LOCAL_RANK",
            found=runtime.device,
            remedy="--device cuda",
        )
    return runtime.model_copy(update={"workers": 0, "gpus_per_worker": 0.0})


def device_of(launch: Launch, runtime: RuntimeConfig) -> torch.device:
    """The device of this process: with several processes, each has a GPU of its own.

    Raises ConfigError if there is no such GPU.
    """
    device = resolve_device(runtime.device)
    if device.type == "cpu" or launch.world_size == 1:
        return device
    return resolve_device(f"cuda:{launch.local_rank}")


def fit_with_peers(
    task: TrainingTask,
    settings: TrainingSettings,
    run: RunDirectory,
    progress: Progress,
    stop: StopRequest,
    evaluator: Evaluator | None,
    launch: Launch,
) -> None:
    """Train as rank 0, together with the other ranks. Raises what ``fit`` raises on any of them.

    Raises ComputeError if one of them dies.
    """
    device = device_of(launch, settings.runtime)
    others = peers()
    others.tell("train", settings.runtime.model_dump(mode="json"))
    _wait_until_ready(others, launch, stop)
    done = False
    try:
        group = _join(others, launch, device)
        _exchange((task, evaluator, settings, run))
        fit(task, settings, run, group, device, progress, stop, evaluator)
        done = True
    except RuntimeError as error:
        reason = _reason(others, error)
        if reason is None:
            raise
        raise reason from error
    finally:
        _leave(device, done=done)


def _wait_until_ready(others: Peers, launch: Launch, stop: StopRequest) -> None:
    """Wait for all ranks. Raises the error of one that cannot go on, and Interrupted."""
    waited_for = [f"ready/{rank}" for rank in range(1, launch.world_size)]
    while waited_for:
        _raise_refusal(others)
        if stop.signal_number is not None:
            raise Interrupted(stop.signal_number)
        if others.told(waited_for[0]) is None:
            time.sleep(POLL_SECONDS)
        else:
            del waited_for[0]


def _raise_refusal(others: Peers) -> None:
    refusal = others.told("refusal")
    if refusal is not None:
        raise error_from(refusal)


def _reason(others: Peers, error: RuntimeError) -> DistInitError | None:
    """Why an exchange with the other ranks failed; None if ``error`` is not about them."""
    with suppress(DistError):
        refusal = others.told("refusal")
        if refusal is not None:
            return error_from(refusal)
    if not _is_lost(error):
        return None
    return ComputeError(
        "a process of this training has ended",
        expected="all processes that torchrun has started",
        found=str(error).splitlines()[0],
        remedy="rerun the same command to resume from the last checkpoint",
    )


def _is_lost(error: RuntimeError) -> bool:
    """Whether gloo or NCCL has lost its connection to another rank."""
    if isinstance(error, DistError):
        return True
    text = str(error).lower()
    return "connection" in text or "gloo" in text


def _join(others: Peers, launch: Launch, device: torch.device) -> ProcessGroup:
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    torch.distributed.init_process_group(
        backend,
        store=others.store,
        rank=launch.rank,
        world_size=launch.world_size,
        timeout=_GROUP_TIMEOUT,
    )
    return ProcessGroup()


def _exchange(work: _Work | None) -> _Work:
    """Rank 0 gives its ``work`` to all others, which return it."""
    box: list[Any] = [work]
    torch.distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    received: _Work = box[0]
    return received


def _leave(device: torch.device, *, done: bool) -> None:
    """Close the connections, so that ranks that wait for this one get an error.

    ``done``: no rank waits for another. Otherwise NCCL could wait for the others to close theirs.
    """
    if torch.distributed.is_initialized() and (done or device.type == "cpu"):
        torch.distributed.destroy_process_group()
        gc.collect()


def help_rank_0(launch: Launch) -> int:
    """Train with rank 0 if it trains, and return its exit code once its command has ended."""
    others = peers()
    with stop_on_signals(_say_nothing, "", once=True) as stop, suppress(DistError):
        runtime = None
        while runtime is None:
            code = _end_code(others, stop)
            if code is not None:
                return code
            runtime = others.told("train")
        with _leaving_with_rank_0(others):
            refusal = _train(others, launch, RuntimeConfig.model_validate(runtime))
        if refusal is not None:
            return _refuse(others, refusal)
        while (code := _end_code(others, stop)) is None:
            pass
        return code
    return ExitCode.FAILED  # torchrun is gone


def _say_nothing(_: str) -> None:
    pass


def _end_code(others: Peers, stop: StopRequest) -> int | None:
    """Wait a moment for the exit code. After a signal, rank 0 ends soon or is dead already."""
    seconds = POLL_SECONDS if stop.signal_number is None else _LEAVE_SECONDS
    code = others.wait("ended", seconds)
    if code is None and stop.signal_number is not None:
        return 128 + stop.signal_number
    return None if code is None else int(code)


def _train(others: Peers, launch: Launch, runtime: RuntimeConfig) -> DistInitError | None:
    """Train until the end, or until rank 0 leaves. Returns an error that is of this rank alone."""
    device, done = torch.device("cpu"), False
    try:
        device = device_of(launch, runtime)
        others.tell(f"ready/{launch.rank}", True)
        group = _join(others, launch, device)
        task, evaluator, settings, run = _exchange(None)
        fit(task, settings, run, group, device, NullProgress(), StopRequest(), evaluator)
        done = True
    except DistInitError as error:
        # A copy: the frames of its traceback, and those of its cause, hold the process group.
        return error_from(error_record(error))
    except RuntimeError as error:
        if not _is_lost(error):
            raise
    finally:
        _leave(device, done=done)
    return None


def _refuse(others: Peers, error: DistInitError) -> int:
    """Let rank 0 report ``error``; report it here if rank 0 cannot, as it waits for its GPU."""
    others.tell("refusal", error_record(error))
    code = others.wait("ended", _LEAVE_SECONDS)
    if code is not None:
        return int(code)
    raise error


@contextmanager
def _leaving_with_rank_0(others: Peers) -> Iterator[None]:
    """End this process with torchrun, or if the body does not end soon after rank 0 has ended.

    The body may wait for rank 0 in an operation of its GPU that never returns. Nothing is lost:
    only rank 0 writes files.
    """
    done = threading.Event()

    def watch() -> None:
        try:
            while (code := others.end_code()) is None:
                if done.wait(POLL_SECONDS):
                    return
        except DistError:
            os._exit(ExitCode.FAILED)
        if not done.wait(_LEAVE_SECONDS):
            os._exit(code)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()  # a thread that torch's code lets wait when the process ends would abort it
