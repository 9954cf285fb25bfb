"""Peak memory of one extraction worker and of its ffmpeg: long videos, large pictures.

    python benchmarks/memory.py [--folder FOLDER] [--only NAME ...] [--json]

Makes by ffmpeg a video of ten minutes in 1080p, one of an hour, a short one of the same kind to
compare with, and one in 4K; ``--folder`` keeps them for the next time. Each is extracted in a
process of its own by the null teacher, with a stride and with a frame store, one video at a time.
Figures are the kernel's high-water marks of resident memory (VmHWM), which for the worker include
what Python and torch take before anything is done.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from distinit.pipeline.video.binary import find_ffmpeg
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import extract

SEGMENT_SECONDS = 10
_WATCH_SECONDS = 0.05
_HIGH_WATER = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)
_PARENT = re.compile(r"^PPid:\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Made:
    """A video to make: testsrc2's moving picture, H.264."""

    name: str
    width: int
    height: int
    fps: int
    seconds: int


VIDEOS = (
    Made("1080p, 1 min", 1920, 1080, 5, 60),
    Made("1080p, 10 min", 1920, 1080, 5, 600),
    Made("180p, 1 min", 320, 180, 5, 60),
    Made("180p, 1 h", 320, 180, 5, 3600),
    Made("4K, 10 s", 3840, 2160, 5, 10),
)


@dataclass(frozen=True, slots=True)
class Peak:
    """Of one extraction, MiB."""

    frames: int
    idle_mib: float  # the worker, everything imported
    worker_mib: float
    ffmpeg_mib: float


def make_video(made: Made, folder: Path) -> Path:
    """The video as ``folder``/NAME/video.mp4, unless it is there: one segment over and over."""
    path = folder / re.sub(r"\W+", "_", made.name) / "video.mp4"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    segment = path.with_name("segment.tmp")
    source = f"testsrc2=size={made.width}x{made.height}:rate={made.fps}"
    x264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-bf", "0"]
    length = min(made.seconds, SEGMENT_SECONDS)
    _ffmpeg("-f", "lavfi", "-i", source, "-t", str(length), *x264, "-f", "mp4", str(segment))
    loops = -(-made.seconds // SEGMENT_SECONDS) - 1
    whole = ["-stream_loop", str(loops), "-i", str(segment), "-c", "copy"]
    _ffmpeg(*whole, "-t", str(made.seconds), str(path))
    segment.unlink()
    return path


def _ffmpeg(*arguments: str) -> None:
    argv = [str(find_ffmpeg().path), "-nostdin", "-v", "error", "-y", *arguments]
    subprocess.run(argv, check=True)


def peaks_of(*configs: ExtractConfig) -> list[Peak]:
    """Extract in a fresh process, one after another, and watch: a later peak is never lower."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_extract_here, [c.model_dump(mode="json") for c in configs]))


def _extract_here(fields: dict[str, object]) -> Peak:
    idle_mib = high_water_mib("self")
    with _watched_children() as children:
        result = extract(ExtractConfig.model_validate(fields))
    return Peak(result.frames_done, idle_mib, high_water_mib("self"), max(children.values()))


def high_water_mib(pid: str) -> float:
    """Most resident memory that a process ever had, MiB; 0 once it is gone."""
    try:
        found = _HIGH_WATER.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found.group(1)) / 1024 if found else 0.0


@contextmanager
def _watched_children() -> Iterator[dict[str, float]]:
    """High-water marks of the children of this process, by pid, while inside."""
    marks: dict[str, float] = {"none": 0.0}
    over = threading.Event()

    def watch() -> None:
        me = str(multiprocessing.current_process().pid)
        while not over.wait(_WATCH_SECONDS):
            for pid in _children(me):
                marks[pid] = max(marks.get(pid, 0.0), high_water_mib(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield marks
    finally:
        over.set()
        thread.join()


def _children(parent: str) -> Iterator[str]:
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            found = _PARENT.search(status.read_text())
        except OSError:
            continue
        if found and found.group(1) == parent:
            yield status.parent.name


def config_for(video: Path, stride: int, folder: Path) -> ExtractConfig:
    """As a user would, with the teacher that costs nothing."""
    sampling = {"mode": "stride", "stride": stride} if stride > 1 else {}
    return ExtractConfig.model_validate(
        {
            "videos": str(video.parent),
            "teachers": [{"name": "null"}],
            "cache": str(folder / "cache"),
            "frames": str(folder / "frames"),
            "sampling": sampling,
        }
    )


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the videos are kept.")
@click.option("--only", multiple=True, type=click.Choice([made.name for made in VIDEOS]))
@click.option("--stride", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(folder: Path | None, only: tuple[str, ...], stride: int, as_json: bool) -> None:
    table = {}
    with tempfile.TemporaryDirectory() as temporary:
        for made in VIDEOS:
            if only and made.name not in only:
                continue
            video = make_video(made, folder or Path(temporary))
            with tempfile.TemporaryDirectory() as outputs:
                (peak,) = peaks_of(config_for(video, stride, Path(outputs)))
            table[made.name] = asdict(peak)
            if not as_json:
                click.echo(
                    f"{made.name:<15} {peak.frames:6} frames   worker {peak.worker_mib:6.0f} MiB "
                    f"(idle {peak.idle_mib:.0f})   ffmpeg {peak.ffmpeg_mib:6.0f} MiB"
                )
    if as_json:
        click.echo(json.dumps({"stride": stride, "table": table}))


if __name__ == "__main__":
    main()
