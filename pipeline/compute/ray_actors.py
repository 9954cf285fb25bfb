"""The executor of a cluster: N Ray actors, a bounded ``ray.wait`` loop, requeue on death.

Not Ray Data: see docs/decisions. Ray is imported inside functions, since it costs a second.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from distinit.pipeline.compute.executor import (
    Event,
    Finished,
    OnDeath,
    Progressed,
    WorkerFactory,
)
from distinit.schemas.errors import ComputeError, DistInitError
from distinit.schemas.extract import ComputeConfig

__all__ = ["RayExecutor", "ensure_ray"]

_WAIT_SECONDS = 1.0


def ensure_ray(config: ComputeConfig) -> bool:
    """Connect to ``config.ray_address`` or start Ray on this machine.

    Returns whether this call started or joined it (so that the caller ends it again).
    Raises ComputeError if the cluster cannot be reached or is too small.
    """
    # Ray 2.60 otherwise re-creates a uv environment for every worker.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray

    started = not ray.is_initialized()
    if started:
        _start_ray(config)
    needed = config.workers * config.cpus_per_worker
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if resources.get("CPU", 0) < needed:
        raise ComputeError(
            "the Ray cluster is too small for the workers asked for",
            expected=f"{needed:g} CPU cores for {config.workers} workers",
            found=f"{resources.get('CPU', 0):g} CPU cores",
            remedy="lower --workers or --cpus-per-worker",
        )
    gpus_needed = config.workers * config.gpus_per_worker
    if resources.get("GPU", 0) < gpus_needed:
        raise ComputeError(
            "the Ray cluster has too few GPUs for the workers asked for",
            expected=f"{gpus_needed:g} GPUs for {config.workers} workers",
            found=f"{resources.get('GPU', 0):g} GPUs",
            remedy="lower --workers or --gpus-per-worker (fractions share a GPU)",
        )
    return started


def _start_ray(config: ComputeConfig) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if config.ray_address is not None:
            ray.init(address=config.ray_address, **quiet)
            return
        cores = max(os.cpu_count() or 1, math.ceil(config.workers * config.cpus_per_worker))
        ray.init(num_cpus=cores, include_dashboard=False, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ComputeError(
            "Ray could not be started or reached",
            expected=config.ray_address or "a local Ray",
            found=str(error).strip().splitlines()[0] if str(error).strip() else repr(error),
            remedy="check --ray-address (`ray status`), or use --workers 0 to run without Ray",
        ) from error


@dataclass(slots=True)
class _Running[TaskT]:
    """One task on one actor."""

    task: TaskT
    actor: Any
    last_note: Any = None


@dataclass(slots=True)
class _Pool[TaskT]:
    """Idle actors, waiting tasks, and the streams of the busy ones."""

    waiting: deque[TaskT]
    idle: list[Any] = field(default_factory=list)
    running: dict[Any, _Running[TaskT]] = field(default_factory=dict)


class RayExecutor:
    """See Executor. At most ``config.workers`` tasks are under way at once."""

    def __init__(self, config: ComputeConfig) -> None:
        """Start or join Ray. Raises ComputeError."""
        self._config = config
        self._started_ray = ensure_ray(config)
        self._actors: list[Any] = []

    def run[TaskT, ResultT](
        self,
        factory: WorkerFactory[TaskT, ResultT],
        tasks: Sequence[TaskT],
        on_death: OnDeath[TaskT],
    ) -> Iterator[Event[TaskT, ResultT]]:
        """See Executor."""
        import ray

        pool = _Pool(deque(tasks))
        count = min(self._config.workers, len(tasks))
        pool.idle = [self._new_actor(factory) for _ in range(count)]
        try:
            while pool.waiting or pool.running:
                while pool.waiting and pool.idle:
                    task, actor = pool.waiting.popleft(), pool.idle.pop()
                    stream = actor.run.options(num_returns="streaming").remote(task)
                    pool.running[stream] = _Running(task, actor)
                ready, _ = ray.wait(list(pool.running), num_returns=1, timeout=_WAIT_SECONDS)
                for stream in ready:
                    yield from self._step(pool, stream, factory, on_death)
        finally:
            self._kill_actors()

    def _step[TaskT, ResultT](
        self,
        pool: _Pool[TaskT],
        stream: Any,
        factory: WorkerFactory[TaskT, ResultT],
        on_death: OnDeath[TaskT],
    ) -> Iterator[Event[TaskT, ResultT]]:
        """Take one message from one stream; bring a dead worker's task back into the queue."""
        import ray
        from ray.exceptions import RayActorError, RayError, RayTaskError

        running = pool.running[stream]
        try:
            kind, value = ray.get(next(stream))
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, DistInitError):
                raise cause from None
            raise
        except (RayActorError, StopIteration, RayError) as error:
            del pool.running[stream]
            self._discard(running.actor)
            pool.waiting.appendleft(on_death(running.task, running.last_note, _reason(error)))
            pool.idle.append(self._new_actor(factory))
            return
        if kind == "note":
            running.last_note = value
            yield Progressed(running.task, value)
            return
        del pool.running[stream]
        pool.idle.append(running.actor)
        yield Finished(running.task, value)

    def _new_actor(self, factory: WorkerFactory[Any, Any]) -> Any:
        import ray

        actor_class = ray.remote(
            num_cpus=self._config.cpus_per_worker,
            num_gpus=self._config.gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
        )(_ActorBody)
        threads = max(1, int(self._config.cpus_per_worker))
        actor = actor_class.remote(factory, threads)
        self._actors.append(actor)
        return actor

    def _discard(self, actor: Any) -> None:
        self._actors = [other for other in self._actors if other is not actor]

    def _kill_actors(self) -> None:
        import ray

        if ray.is_initialized():
            for actor in self._actors:
                ray.kill(actor)
        self._actors = []

    def close(self) -> None:
        """Kill the workers; end Ray if this executor started it."""
        import ray

        self._kill_actors()
        if self._started_ray and ray.is_initialized():
            ray.shutdown()


class _ActorBody:
    """What runs in the actor's process: build the worker once, stream its notes and result."""

    def __init__(self, factory: WorkerFactory[Any, Any], threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._worker = factory()

    def run(self, task: Any) -> Iterator[tuple[str, Any]]:
        notes = self._worker.run(task)
        while True:
            try:
                note = next(notes)
            except StopIteration as stop:
                yield "result", stop.value
                return
            yield "note", note


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
