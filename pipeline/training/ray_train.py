"""Trains on N Ray Train workers. Ray is imported only when it is used.

Ray starts the workers, joins them in one process group and restarts them when one dies; they then
resume from the checkpoints of the run. Each worker calls ``fit``, as training in one process does.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from distinit.pipeline.compute.device import resolve_device
from distinit.pipeline.compute.ray_cluster import ensure_ray
from distinit.pipeline.interruption import StopRequest
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.training.collective import ProcessGroup
from distinit.pipeline.training.metric_logger import evaluation_text, progress_metrics
from distinit.pipeline.training.ray_notes import Notes
from distinit.pipeline.training.run_dir import RunDirectory
from distinit.pipeline.training.stopping import TrainingStoppedError
from distinit.pipeline.training.task import Evaluator, TrainingSettings, TrainingTask
from distinit.pipeline.training.trainer import fit
from distinit.pipeline.training.workload import Forecast
from distinit.schemas.compute import ComputeConfig
from distinit.schemas.errors import ComputeError, DistInitError

__all__ = ["MAX_RESTARTS", "fit_on_ray"]

MAX_RESTARTS = 3
POLL_SECONDS = 1.0
_STOP_POLL_SECONDS = 0.2


def fit_on_ray(
    task: TrainingTask,
    settings: TrainingSettings,
    run: RunDirectory,
    progress: Progress,
    stop: StopRequest,
    evaluator: Evaluator | None = None,
) -> None:
    """Train on ``runtime.workers`` workers until the last epoch is done.

    ``task`` and ``evaluator`` are pickled and rebuilt on each worker. The run directory must be on
    a file system that all workers share.

    ``stop`` is passed on to the worker of rank 0, which writes the checkpoint.

    Raises ComputeError if Ray cannot start or workers die more often than MAX_RESTARTS, and what
    ``fit`` raises on a worker.
    """
    runtime = settings.runtime
    started = ensure_ray(
        ComputeConfig(
            workers=runtime.workers,
            gpus_per_worker=runtime.gpus_per_worker,
            ray_address=runtime.ray_address,
        )
    )
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    import ray
    from ray.train import TrainingFailedError

    notes = Notes(run.root / "ray")
    notes.clear()
    trainer = _torch_trainer((task, evaluator), settings, run)
    try:
        with _showing_progress(run, progress):
            _fit(trainer, stop, notes, wait=not started)
    except TrainingFailedError as error:
        notes.raise_ending()
        raise ComputeError(
            "training on Ray failed",
            expected=f"at most {MAX_RESTARTS} restarts",
            found=str(error).strip().splitlines()[-1],
            remedy="rerun the same command to resume from the last checkpoint; "
            "--workers 0 trains in this process and shows the whole error",
        ) from error
    finally:
        if started:
            ray.shutdown()
    notes.raise_ending()


def _fit(trainer: Any, stop: StopRequest, notes: Notes, *, wait: bool) -> None:
    """Run ``trainer.fit()`` in a thread, and pass a stop request on to the workers.

    In the main thread, Ray would replace the handler of SIGINT, and not restore it. ``wait``: after
    a stop, wait until Ray has ended the workers; otherwise shutting Ray down ends them sooner.
    """
    errors: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    while thread.is_alive() and (wait or not notes.has_stopped()):
        thread.join(_STOP_POLL_SECONDS)
        if stop.is_set():
            notes.ask_to_stop()
    if errors and not notes.has_stopped():
        raise errors[0]


def _torch_trainer(
    work: tuple[TrainingTask, Evaluator | None], settings: TrainingSettings, run: RunDirectory
) -> Any:
    from ray import cloudpickle
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    pickled: Callable[[tuple[TrainingTask, Evaluator | None]], bytes] = cloudpickle.dumps
    runtime = settings.runtime
    on_gpu = runtime.gpus_per_worker > 0
    resources = {"CPU": 1.0} | ({"GPU": runtime.gpus_per_worker} if on_gpu else {})
    return TorchTrainer(
        _work,
        train_loop_config={
            # Unpickled in _work, so that an error while rebuilding the task is reported as well.
            "work": pickled(work),
            "settings": settings,
            "run": run,
            "cache_home": os.environ.get("XDG_CACHE_HOME"),
        },
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=runtime.workers, use_gpu=on_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            # A new name each time: Ray would load any state that it finds under this name.
            name=f"{run.record.kind}-{uuid.uuid4().hex[:16]}",
            storage_path=str((run.root / "ray").resolve()),
            failure_config=FailureConfig(max_failures=MAX_RESTARTS),
        ),
    )


def _work(config: dict[str, Any]) -> None:
    """The main function of one worker.

    A DistInitError would be raised again after every restart, so it is written to a file, and so
    is a stop: the restarted workers find the file and exit, and the driver raises it.
    """
    from ray import cloudpickle
    from ray.train.torch import get_device

    settings: TrainingSettings = config["settings"]
    run: RunDirectory = config["run"]
    notes = Notes(run.root / "ray")
    if notes.has_ended():
        return
    if config["cache_home"] is not None:  # derive indexes where the driver does
        os.environ["XDG_CACHE_HOME"] = config["cache_home"]
    on_gpu = settings.runtime.gpus_per_worker > 0
    device = get_device() if on_gpu else resolve_device("cpu")
    try:
        task, evaluator = cloudpickle.loads(config["work"])
        group = ProcessGroup()
        with notes.following(group.rank == 0) as stop:
            fit(task, settings, run, group, device, NullProgress(), stop, evaluator)
    except (DistInitError, TrainingStoppedError) as error:
        notes.write_ending(error)
        if settings.runtime.workers > 1:
            raise  # the others wait in an all-reduce: Ray stops them only if this worker fails


@contextmanager
def _showing_progress(run: RunDirectory, progress: Progress) -> Iterator[None]:
    """While the ``with`` body runs, show the metric lines that worker 0 writes."""
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(run, progress, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _follow(run: RunDirectory, progress: Progress, stop: threading.Event) -> None:
    done: float | None = None
    forecast: Forecast | None = None
    shown = len(run.read_evaluations())
    last = False
    while not last:
        last = stop.wait(POLL_SECONDS)
        evaluations = run.read_evaluations()
        for evaluation in evaluations[shown:]:
            progress.message(evaluation_text(evaluation))
        shown = len(evaluations)
        line = run.last_metric()
        if line is None:
            continue
        clips = line.get("clips", 0)
        if done is None or forecast is None:
            total = line.get("clips_total", clips)
            progress.start("training", total, "clips", clips)
            forecast = Forecast(progress, int(total - clips))
        elif clips != done:
            progress.advance(clips - done, **progress_metrics(line))
            forecast.advance(int(clips - done))
        done = clips
    progress.finish()
