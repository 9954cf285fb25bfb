"""Kills workers and nodes of a real Ray cluster on this machine; used by test_extract_cluster.

    python cluster_accidents.py CORPUS OUT FFMPEG

It is a separate process, because a process can have only one Ray connection. It prints one JSON
line per accident. ``kill_worker`` sends SIGKILL, as the kernel's out-of-memory killer does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distinit.pipeline.progress import NullProgress
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import ExtractResult, extract

CORPUS, OUT, FFMPEG = (Path(argument) for argument in sys.argv[1:4])

# An ffmpeg that is slow, so that accidents happen in the middle of the work, and that kills the
# worker when it decodes e.mp4, as long as the file kills-workers exists.
SCRIPT = f"""#!/bin/sh
case "$*" in *rawvideo*) sleep 0.4;; esac
test -e {OUT}/kills-workers && case "$*" in
  *rawvideo*e.mp4*|*e.mp4*rawvideo*) kill -9 $PPID;;
esac
exec {FFMPEG} "$@"
"""


class Accidents(NullProgress):
    """Runs ``accidents``: the first after one video is done, each further one two videos later."""

    def __init__(self, *accidents: Callable[[], None]) -> None:
        self._accidents = list(accidents)
        self._next = 1

    @property
    def left(self) -> int:
        return len(self._accidents)

    def advance(self, amount: float = 1, **shown: Any) -> None:
        if self._accidents and shown.get("videos", (0, 0))[0] >= self._next:
            self._next += 2
            self._accidents.pop(0)()


def run(name: str, progress: Any = None, **changes: Any) -> ExtractResult:
    values = {
        "videos": str(CORPUS),
        "teachers": [{"name": "null"}],
        "cache": str(OUT / name / "cache"),
        "frames": str(OUT / name / "frames"),
        "unit_rows": 64,
        "batch_size": 16,
        "compute": {"workers": "auto"},
        "decode": {"parallel_videos": 4},
        "max_failed": 0.5,
    }
    return extract(ExtractConfig.model_validate(values | changes), progress=progress)


def processes(needle: str) -> Iterator[int]:
    """Pids of our processes (marked in their environment) with ``needle`` in the command line."""
    mark = f"DISTINIT_TEST_MARK={OUT}".encode()
    for folder in Path("/proc").iterdir():
        try:
            environment = (folder / "environ").read_bytes() if folder.name.isdigit() else b""
            if mark in environment and needle in (folder / "cmdline").read_bytes().decode():
                yield int(folder.name)
        except OSError:
            continue


def kill_worker() -> None:
    """Send SIGKILL to a busy worker."""
    os.kill(next(processes("ray::DistInitWorker.run")), signal.SIGKILL)


def report(accident: str, began: float, result: ExtractResult, **more: Any) -> None:
    """Print the line of an accident."""
    failed = {video.path: video.error for video in result.failed}
    line = {"accident": accident, "digest": result.content_digest, "failed": failed}
    print(json.dumps({**line, "seconds": round(time.monotonic() - began, 1), **more}), flush=True)


def accidents(cluster: Any, nodes: list[Any]) -> None:
    """Kill a worker and remove a node; then extract a video that kills every worker."""
    began = time.monotonic()
    both = Accidents(kill_worker, lambda: cluster.remove_node(nodes.pop(), allow_graceful=False))
    result = run("lossy", both)
    report("worker killed, node removed", began, result, accidents_left=both.left)

    began = time.monotonic()
    (OUT / "kills-workers").touch()
    result = run("deadly")
    report("deadly video", began, result, summary=result.summary())
    began = time.monotonic()
    together = run("together", unit_rows=1024, decode={"parallel_videos": 1})
    report("deadly video that shares an ffmpeg", began, together)
    (OUT / "kills-workers").unlink()
    began = time.monotonic()
    report("deadly video retried", began, run("deadly", retry_failed=True, compute={"workers": 0}))


def main() -> None:
    script = OUT / "ffmpeg"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    os.environ |= {"DISTINIT_FFMPEG": str(script), "DISTINIT_TEST_MARK": str(OUT)}
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        accidents(cluster, nodes)
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()
