"""Connects to Ray or starts it, and computes how many workers fit into the cluster."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distinit.pipeline.compute.orphans import watch_over_children
from distinit.schemas.compute import ComputeConfig
from distinit.schemas.errors import ComputeError, ConfigError
from distinit.schemas.wording import reason_of

__all__ = ["ensure_ray", "worker_count"]


def ensure_ray(config: ComputeConfig) -> bool:
    """Connect to ``config.ray_address`` (or RAY_ADDRESS), or start Ray on this machine.

    Returns whether this call connected or started Ray, so that the caller shuts it down.
    Raises ComputeError if the cluster cannot be reached or is too small.
    """
    # Ray 2.60 otherwise re-creates a uv environment for every worker.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray

    started = not ray.is_initialized()
    if started:
        with _keeping_sigterm():
            _start_ray(config)
    try:
        _check_room(config)
    except ComputeError:
        if started:
            ray.shutdown()
        raise
    return started


def worker_count(config: ComputeConfig) -> int:
    """``config.workers``; for ``auto`` as many as fit into the cluster, but at least one."""
    if config.workers != "auto":
        return config.workers
    resources = _resources()
    room = math.floor(resources.get("CPU", 0) / config.cpus_per_worker)
    if config.gpus_per_worker > 0:
        room = min(room, math.floor(resources.get("GPU", 0) / config.gpus_per_worker))
    return max(room, 1)


def _resources() -> dict[str, float]:
    import ray

    return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]


def _check_room(config: ComputeConfig) -> None:
    count, resources = worker_count(config), _resources()
    for kind, each, option in (
        ("CPU", config.cpus_per_worker, "--cpus-per-worker"),
        ("GPU", config.gpus_per_worker, "--gpus-per-worker (fractions share a GPU)"),
    ):
        found = resources.get(kind, 0)
        if found < count * each:
            raise ComputeError(
                f"the Ray cluster is too small for the requested workers: {kind}",
                expected=f"{count * each:g} {kind} for {count} workers",
                found=f"{found:g} {kind}",
                remedy=f"lower --workers or {option}",
            )


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Restore the handler of SIGTERM, which ``ray.init`` replaces, unless it was the default."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and before not in (signal.SIG_DFL, None):
            signal.signal(signal.SIGTERM, before)


def _start_ray(config: ComputeConfig) -> None:
    import ray

    address = config.ray_address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is not None and address.startswith("ray://"):
        raise ConfigError(
            "Ray Client addresses cannot be used",
            expected="auto or HOST:6379",
            found=address,
            remedy="run the command on the cluster: `ray job submit -- distinit extract ...`",
        )
    try:
        if address is not None and address != "local":
            ray.init(address=address, **quiet)
            return
        watch_over_children()
        ray.init(address="local", num_cpus=_local_cores(config), include_dashboard=False, **quiet)
    except Exception as error:  # Ray raises Exception itself if a node is slow to start
        raise ComputeError(
            "Ray could not be started or reached",
            expected=address or "a local Ray",
            found=reason_of(error),
            remedy="run the command again if the machine was busy, check --ray-address "
            "(`ray status`), or use --workers 0 to run without Ray",
        ) from error


def _local_cores(config: ComputeConfig) -> int:
    """CPUs to declare to Ray: more than exist if the requested workers have to share them."""
    cores = os.cpu_count() or 1
    if config.workers == "auto":
        return cores
    return max(cores, math.ceil(config.workers * config.cpus_per_worker))
