"""Accidents on a real Ray cluster of several nodes on this machine; ``test_extract_cluster``.

    python cluster_accidents.py CORPUS OUT FFMPEG

A process of its own, since a process has one Ray connection. Prints a JSON line for each accident.
The kernel's out-of-memory killer sends SIGKILL to a worker; so does ``oom`` here, from outside.
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

# Slow enough for accidents to hit the middle; kills its worker when told to (a video that does).
SCRIPT = f"""#!/bin/sh
case "$*" in *rawvideo*) sleep 0.4;; esac
test -e {OUT}/kills-workers && case "$*" in
  *rawvideo*e.mp4*|*e.mp4*rawvideo*) kill -9 $PPID;;
esac
exec {FFMPEG} "$@"
"""


class Accidents(NullProgress):
    """Calls each of ``happen`` once: the first when a video is through, each next two later."""

    def __init__(self, *happen: Callable[[], None]) -> None:
        self._happen = list(happen)
        self._next = 1

    @property
    def left(self) -> int:
        return len(self._happen)

    def advance(self, amount: float = 1, **figures: Any) -> None:
        if self._happen and figures.get("videos", (0, 0))[0] >= self._next:
            self._next += 2
            self._happen.pop(0)()


def run(name: str, progress: Any = None, **changes: Any) -> ExtractResult:
    values = {
        "videos": str(CORPUS),
        "teachers": [{"name": "null"}],
        "cache": str(OUT / name / "cache"),
        "frames": str(OUT / name / "frames"),
        "unit_rows": 64,
        "batch_size": 16,
        "compute": {"workers": "auto"},
    }
    return extract(ExtractConfig.model_validate(values | changes), progress=progress)


def processes(needle: str) -> Iterator[int]:
    """Pids of living processes whose command line contains ``needle`` and, below it, our mark."""
    mark = f"DISTINIT_TEST_MARK={OUT}".encode()
    for folder in Path("/proc").iterdir():
        try:
            environment = (folder / "environ").read_bytes() if folder.name.isdigit() else b""
            if mark in environment and needle in (folder / "cmdline").read_bytes().decode():
                yield int(folder.name)
        except OSError:
            continue


def oom() -> None:
    """SIGKILL a worker that is at work."""
    os.kill(next(processes("ray::DistInitWorker.run")), signal.SIGKILL)


def say(accident: str, began: float, result: ExtractResult, **more: Any) -> None:
    failed = {video.path: video.error for video in result.failed}
    line = {"accident": accident, "digest": result.content_digest, "failed": failed}
    print(json.dumps({**line, "seconds": round(time.monotonic() - began, 1), **more}), flush=True)


def accidents(cluster: Any, nodes: list[Any]) -> None:
    """A worker dies, then a node goes for good; then a video that kills every worker it meets."""
    began = time.monotonic()
    both = Accidents(oom, lambda: cluster.remove_node(nodes.pop(), allow_graceful=False))
    result = run("lossy", both)
    say("worker killed, node removed", began, result, accidents_left=both.left)

    began = time.monotonic()
    (OUT / "kills-workers").touch()
    result = run("deadly")
    (OUT / "kills-workers").unlink()
    say("deadly video", began, result, summary=result.summary())
    began = time.monotonic()
    say("deadly video retried", began, run("deadly", retry_failed=True, compute={"workers": 0}))


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
