"""Runs tasks on N Ray actors: a bounded ``ray.wait`` loop that requeues the tasks of dead workers.

docs/decisions/001-own-actors-not-ray-data.md says why this does not use Ray Data. Ray is imported
inside functions, since the import takes a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from distinit.pipeline.compute.executor import (
    Ahead,
    Closable,
    Event,
    Finished,
    OnDeath,
    Progressed,
    WorkerFactory,
    none_ahead,
)
from distinit.pipeline.compute.ray_cluster import ensure_ray, worker_count
from distinit.pipeline.compute.waiting import WaitingTasks
from distinit.schemas.compute import ComputeConfig
from distinit.schemas.errors import ComputeError, DistInitError

__all__ = ["RayExecutor"]

_WAIT_SECONDS = 1.0
_DEATH_SECONDS = 60.0  # until Ray knows whether a worker or its node has died
_POLL_SECONDS = 0.5
_START_TRIES = 5  # workers in a row that died before they were ready


@dataclass(slots=True)
class _Running[TaskT]:
    """A task that runs on an actor."""

    task: TaskT
    actor: Any
    upcoming: Sequence[TaskT]  # announced to the actor, but still in the queue
    last_note: Any = None


@dataclass(slots=True)
class _Idle[TaskT]:
    """An actor that is ready for a task."""

    actor: Any
    upcoming: Sequence[TaskT] = ()  # announced to it when it got its last task


@dataclass(slots=True)
class _Pool[TaskT, ResultT]:
    """Waiting tasks, and actors in each state: starting, idle, busy."""

    factory: WorkerFactory[TaskT, ResultT]
    on_death: OnDeath[TaskT]
    waiting: WaitingTasks[TaskT]
    starting: dict[Any, Any] = field(default_factory=dict)
    idle: list[_Idle[TaskT]] = field(default_factory=list)
    running: dict[Any, _Running[TaskT]] = field(default_factory=dict)
    failed_starts: int = 0
    no_worker_since: float | None = None

    def assign(self) -> _Running[TaskT]:
        """Pick a task for one of the idle actors, and what to announce to it."""
        idle = self.idle.pop()
        others = [running.upcoming for running in self.running.values()]
        others += [other.upcoming for other in self.idle]
        task = self.waiting.take(idle.upcoming, others)
        actors = 1 + len(others) + len(self.starting)
        upcoming = self.waiting.announce(idle.upcoming, others, actors)
        return _Running(task, idle.actor, upcoming)


class RayExecutor:
    """See Executor. At most ``config.workers`` tasks run at once.

    A task is given only to a worker that is ready. So when the cluster shrinks, replacement
    workers that find no free node delay nothing, and when it grows again they join.
    """

    def __init__(self, config: ComputeConfig) -> None:
        """Start Ray, or connect to it. Raises ComputeError."""
        self._config = config
        self._started_ray = ensure_ray(config)
        self._workers = worker_count(config)
        self._actors: list[Any] = []
        self._draining = False

    def run[TaskT, ResultT](
        self,
        factory: WorkerFactory[TaskT, ResultT],
        tasks: Sequence[TaskT],
        on_death: OnDeath[TaskT],
        ahead: Ahead[TaskT] = none_ahead,
    ) -> Iterator[Event[TaskT, ResultT]]:
        """See Executor. Raises ComputeError if no worker can be started or kept alive."""
        import ray

        pool = _Pool(factory, on_death, WaitingTasks(tasks, ahead))
        self._draining = False
        try:
            for _ in range(min(self._workers, len(tasks))):
                self._start_actor(pool)
            while pool.running or (pool.waiting and not self._draining):
                self._assign(pool)
                self._check_alive(pool)
                waited = [*pool.starting, *pool.running]
                ready, _ = ray.wait(waited, num_returns=1, timeout=_WAIT_SECONDS)
                for ref in ready:
                    if ref in pool.starting:
                        self._finish_start(pool, ref)
                    else:
                        yield from self._step(pool, ref)
        finally:
            self._kill_actors()

    def drain(self) -> None:
        """See Executor."""
        self._draining = True

    def _assign(self, pool: _Pool[Any, Any]) -> None:
        while pool.waiting and pool.idle and not self._draining:
            new = pool.assign()
            run = new.actor.run.options(num_returns="streaming")
            pool.running[run.remote(new.task, new.upcoming)] = new

    def _step[TaskT, ResultT](
        self, pool: _Pool[TaskT, ResultT], stream: Any
    ) -> Iterator[Event[TaskT, ResultT]]:
        """Take one message from a stream; requeue the task if its worker has died."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        running = pool.running.pop(stream)
        try:
            kind, value = ray.get(next(stream))
        except RayTaskError as error:
            raise _original_error(error) from None
        except (StopIteration, RayError) as error:
            death = _cause_of_death(running.actor, error)
            self._kill(running.actor)
            task = running.task
            if not _node_was_lost(death):  # a lost node is never the fault of the task
                task = pool.on_death(task, running.last_note, _reason(death))
                pool.waiting.suspect(running.upcoming)
            pool.waiting.put_back(task)
            self._start_actor(pool)
            return
        if kind == "note":
            running.last_note = value
            pool.running[stream] = running  # moves to the end, so that every stream gets its turn
            yield Progressed(running.task, value)
            return
        pool.idle.append(_Idle(running.actor, running.upcoming))
        if not pool.waiting:
            running.actor.release.remote()
        yield Finished(running.task, value)

    def _finish_start(self, pool: _Pool[Any, Any], ref: Any) -> None:
        """Add a worker that is ready to the idle ones, or replace it if it died while starting."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        actor = pool.starting.pop(ref)
        try:
            ray.get(ref)
        except RayTaskError as error:
            raise _original_error(error) from None
        except RayError as error:
            self._kill(actor)
            pool.failed_starts += 1
            if pool.failed_starts >= _START_TRIES:
                raise ComputeError(
                    f"{_START_TRIES} workers in a row died before they were ready",
                    found=_reason(error),
                    remedy="check the memory and GPUs of the nodes, or try --workers 0",
                ) from error
            self._start_actor(pool)
        else:
            pool.failed_starts = 0
            pool.idle.append(_Idle(actor))

    def _check_alive(self, pool: _Pool[Any, Any]) -> None:
        """Raise ComputeError if no worker has been alive for ``start_seconds``."""
        if pool.running or pool.idle:
            pool.no_worker_since = None
            return
        now, limit = time.monotonic(), self._config.start_seconds
        pool.no_worker_since = pool.no_worker_since or now
        if now - pool.no_worker_since > limit:
            required = f"{self._config.cpus_per_worker:g} CPU, {self._config.gpus_per_worker:g} GPU"
            raise ComputeError(
                f"no worker could be started for start_seconds={limit:g}",
                expected=f"a node with {required} free",
                remedy="check `ray status`; rerun the same command to resume",
            )

    def _start_actor(self, pool: _Pool[Any, Any]) -> None:
        import ray

        actor_class = ray.remote(
            num_cpus=self._config.cpus_per_worker,
            num_gpus=self._config.gpus_per_worker,
            max_restarts=0,  # replacements are started here, where it is known when they are ready
            max_task_retries=0,
        )(DistInitWorker)
        actor: Any = actor_class.remote()
        self._actors.append(actor)
        threads = max(1, int(self._config.cpus_per_worker))
        pool.starting[actor.build.remote(pool.factory, threads)] = actor

    def _kill(self, actor: Any) -> None:
        import ray

        self._actors = [other for other in self._actors if other is not actor]
        with suppress(Exception):  # it may be dead, or its node unreachable
            ray.kill(actor)

    def _kill_actors(self) -> None:
        import ray

        if ray.is_initialized():
            for actor in self._actors:
                self._kill(actor)
        self._actors = []

    def close(self) -> None:
        """Kill the workers; shut down Ray if this executor started it."""
        import ray

        self._kill_actors()
        if self._started_ray and ray.is_initialized():
            ray.shutdown()


class DistInitWorker:
    """The Ray actor: builds its worker once, then streams the notes and result of each task."""

    def build(self, factory: WorkerFactory[Any, Any], threads: int) -> None:
        """Build the worker; not in ``__init__``, so that errors arrive as they were raised."""
        os.environ["OMP_NUM_THREADS"] = str(threads)
        import torch

        torch.set_num_threads(threads)
        self._worker = factory()

    def run(self, task: Any, upcoming: Any) -> Iterator[tuple[str, Any]]:
        """Yield ("note", note) any number of times, then ("result", result)."""
        notes = self._worker.run(task, upcoming)
        while True:
            try:
                note = next(notes)
            except StopIteration as stop:
                yield "result", stop.value
                return
            yield "note", note

    def release(self) -> None:
        """Free what was prepared for upcoming tasks, since none is left."""
        if isinstance(self._worker, Closable):
            self._worker.close()


def _original_error(error: Any) -> BaseException:
    """The exception that the worker raised if it is a DistInitError, else Ray's error."""
    return error.cause if isinstance(error.cause, DistInitError) else error


def _cause_of_death(actor: Any, error: BaseException) -> BaseException:
    """Wait until Ray knows why a connection broke: the worker or its node has died."""
    import ray
    from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError

    deadline = time.monotonic() + _DEATH_SECONDS
    while isinstance(error, ActorUnavailableError) and time.monotonic() < deadline:
        try:
            ray.get(actor.__ray_ready__.remote(), timeout=_DEATH_SECONDS)
            return error  # it is alive: only the connection was lost
        except GetTimeoutError:
            return error
        except RayError as death:
            error = death
            time.sleep(_POLL_SECONDS)
    return error


def _node_was_lost(error: BaseException) -> bool:
    return "node has died" in str(error) or getattr(error, "preempted", False)


def _reason(error: BaseException) -> str:
    """The line of Ray's message that gives the cause; the lines before hold identifiers."""
    lines = [line.strip() for line in str(error).splitlines() if not line.startswith("\t")]
    causes = [line for line in lines if line and "before finishing this task" not in line]
    return causes[0].partition(" Some common causes")[0][:300] if causes else type(error).__name__
