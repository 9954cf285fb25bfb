"""Peak memory of one extraction worker and of its ffmpeg, for long videos and large pictures.

    python benchmarks/memory.py [--folder FOLDER] [--only NAME ...] [--json]

Uses ffmpeg to create a video of ten minutes in 1080p, one of an hour, a short one of each kind for
comparison, and one in 4K; ``--folder`` keeps them for the next run. Each is extracted in a separate
process with the null teacher, with a stride and with a frame store, one video at a time
(``--at-once`` decodes several copies of each). The results are the kernel's high-water marks of
resident memory (VmHWM). For ffmpeg, that of the largest process counts. For the worker, it includes
the memory that Python and torch use before any work is done.
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
class VideoSpec:
    """A video to create: ffmpeg's test picture testsrc2 in H.264."""

    name: str
    width: int
    height: int
    fps: int
    seconds: int


VIDEOS = (
    VideoSpec("1080p, 1 min", 1920, 1080, 5, 60),
    VideoSpec("1080p, 10 min", 1920, 1080, 5, 600),
    VideoSpec("180p, 1 min", 320, 180, 5, 60),
    VideoSpec("180p, 1 h", 320, 180, 5, 3600),
    VideoSpec("4K, 10 s", 3840, 2160, 5, 10),
)


@dataclass(frozen=True, slots=True)
class Peak:
    """Peak memory of one extraction, in MiB."""

    frames: int
    idle_mib: float  # the worker after all imports
    worker_mib: float
    ffmpeg_mib: float


def make_video(video: VideoSpec, folder: Path) -> Path:
    """Create ``folder``/NAME/video.mp4 from a repeated segment, unless it exists."""
    path = folder / re.sub(r"\W+", "_", video.name) / "video.mp4"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    segment = path.with_name("segment.tmp")
    source = f"testsrc2=size={video.width}x{video.height}:rate={video.fps}"
    x264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-bf", "0"]
    length = min(video.seconds, SEGMENT_SECONDS)
    _ffmpeg("-f", "lavfi", "-i", source, "-t", str(length), *x264, "-f", "mp4", str(segment))
    loops = -(-video.seconds // SEGMENT_SECONDS) - 1
    whole = ["-stream_loop", str(loops), "-i", str(segment), "-c", "copy"]
    _ffmpeg(*whole, "-t", str(video.seconds), str(path))
    segment.unlink()
    return path


def copies_of(video: Path, count: int, folder: Path) -> Path:
    """Write ``count`` copies of a video to ``folder``, as different videos; return the first."""
    folder.mkdir()
    for number in range(count):
        box = b"\0\0\0\x10free" + number.to_bytes(8, "big")  # ignored by decoders
        (folder / f"{number:02d}.mp4").write_bytes(video.read_bytes() + box)
    return folder / "00.mp4"


def _ffmpeg(*arguments: str) -> None:
    argv = [str(find_ffmpeg().path), "-nostdin", "-v", "error", "-y", *arguments]
    subprocess.run(argv, check=True)


def peaks_of(*configs: ExtractConfig) -> list[Peak]:
    """Extract in one new process, one after another. A later worker peak is never lower."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_extract_here, [c.model_dump(mode="json") for c in configs]))


def _extract_here(fields: dict[str, object]) -> Peak:
    idle_mib = high_water_mib("self")
    with _watched_children() as children:
        result = extract(ExtractConfig.model_validate(fields))
    return Peak(result.frames_done, idle_mib, high_water_mib("self"), max(children.values()))


def high_water_mib(pid: str) -> float:
    """Return the peak resident memory of a process in MiB, or 0 if it has ended."""
    try:
        found = _HIGH_WATER.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found.group(1)) / 1024 if found else 0.0


@contextmanager
def _watched_children() -> Iterator[dict[str, float]]:
    """Record the high-water marks of this process's children, by pid, inside the context."""
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


def config_for(video: Path, stride: int, folder: Path, at_once: int) -> ExtractConfig:
    """Configure an extraction of all videos next to ``video`` with the null teacher."""
    sampling = {"mode": "stride", "stride": stride} if stride > 1 else {}
    return ExtractConfig.model_validate(
        {
            "videos": str(video.parent),
            "teachers": [{"name": "null"}],
            "cache": str(folder / "cache"),
            "frames": str(folder / "frames"),
            "sampling": sampling,
            "decode": {"parallel_videos": at_once},
        }
    )


@click.command(help=__doc__)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Folder in which to keep the videos."
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([video.name for video in VIDEOS]),
    help="Measure only this video; repeat for several.",
)
@click.option(
    "--stride",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="Run the teacher on every N-th frame.",
)
@click.option(
    "--at-once",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Copies of each video that are decoded at a time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    folder: Path | None, only: tuple[str, ...], stride: int, at_once: int, as_json: bool
) -> None:
    table = {}
    with tempfile.TemporaryDirectory() as temporary:
        for video in VIDEOS:
            if only and video.name not in only:
                continue
            path = make_video(video, folder or Path(temporary))
            with tempfile.TemporaryDirectory() as outputs:
                if at_once > 1:
                    path = copies_of(path, at_once, Path(outputs) / "videos")
                (peak,) = peaks_of(config_for(path, stride, Path(outputs), at_once))
            table[video.name] = asdict(peak)
            if not as_json:
                click.echo(
                    f"{video.name:<15} {peak.frames:6} frames   worker {peak.worker_mib:6.0f} MiB "
                    f"(idle {peak.idle_mib:.0f})   ffmpeg {peak.ffmpeg_mib:6.0f} MiB"
                )
    if as_json:
        click.echo(json.dumps({"stride": stride, "table": table}))


if __name__ == "__main__":
    main()
