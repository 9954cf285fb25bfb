"""Files by which the driver and the workers of a training on Ray tell each other that it ends.

The run directory is on a file system that all of them share. Ray offers no such channel: it
restarts a worker that raises an error, whatever the error is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distinit.pipeline.interruption import StopRequest
from distinit.pipeline.records import read_json, write_json
from distinit.pipeline.storage import storage_errors
from distinit.pipeline.training.error_records import error_from, error_record
from distinit.pipeline.training.stopping import TrainingStoppedError
from distinit.schemas.errors import ComputeError, DistInitError

__all__ = ["Notes"]

POLL_SECONDS = 0.5
_REMEDY = "rerun the same command"


class Notes:
    """The files in the folder ``ray`` of one run directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stop = folder / "stop.json"  # by the driver: stop after the current step
        self._stopped = folder / "stopped.json"  # by rank 0: it has stopped, with a checkpoint
        self._refusal = folder / "refusal.json"  # by a worker: it cannot go on

    def clear(self) -> None:
        """Remove what an earlier call left. Raises StorageError."""
        for path in (self._stop, self._stopped, self._refusal):
            with storage_errors(path):
                path.unlink(missing_ok=True)

    def ask_to_stop(self) -> None:
        """Ask the worker of rank 0 to write a checkpoint and to stop."""
        if not self._stop.exists():
            write_json({"stop": True}, self._stop)

    def has_stopped(self) -> bool:
        """Whether the worker of rank 0 has stopped on request."""
        return self._stopped.exists()

    def has_ended(self) -> bool:
        """Whether training has ended early, for any reason that a restart does not change."""
        return self._refusal.exists() or self.has_stopped()

    @contextmanager
    def following(self, is_main: bool) -> Iterator[StopRequest]:
        """Yield a StopRequest that is set when the driver asks; never if not ``is_main``."""
        request, ended = StopRequest(), threading.Event()

        def follow() -> None:
            while not ended.wait(POLL_SECONDS):
                # Listing asks a network file system again; it may remember that a file is missing.
                if self._stop in self._folder.iterdir():
                    request.ask()
                    return

        if is_main:
            threading.Thread(target=follow, daemon=True).start()
        try:
            yield request
        finally:
            ended.set()

    def write_ending(self, error: DistInitError | TrainingStoppedError) -> None:
        """Record why a worker ends."""
        if isinstance(error, TrainingStoppedError):
            write_json({"step": error.step, "steps_total": error.steps_total}, self._stopped)
            return
        write_json(error_record(error), self._refusal)

    def raise_ending(self) -> None:
        """Raise what a worker has recorded, if anything."""
        if self._refusal.exists():
            raise error_from(read_json(self._refusal, error=ComputeError, remedy=_REMEDY))
        if self._stopped.exists():
            record = read_json(self._stopped, error=ComputeError, remedy=_REMEDY)
            step, total = record.get("step"), record.get("steps_total")
            raise TrainingStoppedError(
                step if isinstance(step, int) else 0, total if isinstance(total, int) else None
            )
