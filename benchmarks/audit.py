"""Time and peak memory of the audit of simulated caches.

    python benchmarks/audit.py [--frames N]... [--video-frames N] [--folder FOLDER] [--page]

The caches are made up: videos of 300 frames, a teacher of 1,000 classes whose entropies differ
between videos and drift within them; of 1,000 videos one is black, one is frozen and two are
copies of each other. Their tables are complete files of the format. The targets are one logit per
frame, because the audit does not read them without a frame store. The tables are compressed less
than those of an extraction, which is as fast to read and much faster to write.

For each number of frames, a process of its own builds the index (once per machine and cache), then
audits. The table has the seconds of both, as wall time and as CPU time, the kernel's high-water
mark of resident memory (VmHWM) after each, and the size of the page. duckdb then counts the frames
and classes below a threshold in the tables of the cache; other numbers are an error.
``--page`` then opens the page in Chromium: the time until its first paint, and until its slider has
answered a key. ``write, s`` is the time to make up the cache, which is no part of an audit.
All files are written to a temporary folder and removed; ``--folder`` keeps the caches.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import click
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from made_up_cache import made_up_teacher, made_up_video
from page_times import page_times

from distinit.pipeline.cache.confidence import Fidelity
from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.target_rows import TargetRows
from distinit.pipeline.cache.unit import FrameRows
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.storage import atomic_write_bytes
from distinit.schemas.audit import AuditConfig, AuditResult
from distinit.schemas.base import sha256_of
from distinit.schemas.manifest import VideoOutcome
from distinit.schemas.video import SamplingConfig
from distinit.stages.audit import audit

CLASSES = 1000
CAPACITY = 1 << 17
BLACK, FROZEN, COPIES = 0, 1, (2, 3)  # of each 1,000 videos
HIGHEST_NATS = float(np.log(CLASSES))
TABLE_HEAD = """\
| frames | videos | warnings | index, s (CPU) | audit, s (CPU) | index, GB | audit, GB | page, MB \
| first paint, s | slider, s | write, s |
|---|---|---|---|---|---|---|---|---|---|---|"""


def write_cache(root: Path, videos: int, frames: int) -> None:
    """Write a complete cache of ``videos`` videos of ``frames`` frames."""
    teacher = made_up_teacher("simulated", CLASSES, encoding="topk:1")
    planned = [
        made_up_video(sha256_of(number), f"{number // 1000:04}/{number:07}.mp4", frames)
        for number in range(videos)
    ]
    with (
        patch("distinit.pipeline.cache.unit.write_table", write_quickly),
        patch("os.fsync"),  # nobody needs these files after a power failure
        CacheWriter.create_or_open(
            root,
            videos=planned,
            sampling=SamplingConfig(),
            teachers={teacher.id: teacher},
            unit_rows=CAPACITY,
        ) as writer,
    ):
        index_N = np.arange(frames)
        for number, spec in enumerate(writer.pending_groups()):
            rng = np.random.default_rng(number)
            with GroupWriter(spec) as group:
                for video in spec.videos:
                    hash_N = made_up_hashes(int(Path(video.path).stem), frames, rng)
                    rows = FrameRows.of(video.video_id, "1/25", index_N, index_N, hash_N)
                    group.add_encoded(video, rows, {teacher.id: made_up_rows(frames, rng)})
                    group.finish_video(
                        VideoOutcome(
                            video_id=video.video_id,
                            status="ok",
                            frame_count=frames,
                            width=8,
                            height=8,
                            duration_seconds=frames / 25,
                        )
                    )
                group.commit()
        writer.finalise()


def made_up_hashes(number: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """The perceptual hashes of video ``number``: one bit changes from frame to frame."""
    kind = number % 1000
    if kind == BLACK:
        return np.zeros(frames, np.uint64)
    if kind in COPIES:
        rng = np.random.default_rng(number // 1000)
    flip_N = np.uint64(1) << rng.integers(0, 64, frames).astype(np.uint64)
    flip_N[0] = rng.integers(2**63)
    return np.full(frames, flip_N[0]) if kind == FROZEN else np.bitwise_xor.accumulate(flip_N)


def made_up_rows(frames: int, rng: np.random.Generator) -> TargetRows:
    """The outputs for one video: entropies that drift, a few classes with a long tail."""
    drift_N = np.cumsum(rng.normal(0, 0.05, frames)) + rng.normal(4, 1.2)
    entropy_N = np.clip(drift_N, 0.01, HIGHEST_NATS).astype(np.float32)
    classes = np.minimum(rng.pareto(0.7, 3) * 8, CLASSES - 1).astype(np.int32)
    top_N = classes[np.arange(frames) * len(classes) // frames]
    share_N = np.exp(-entropy_N / 2)
    columns = {
        "entropy_nats": entropy_N,
        "top1_class": top_N,
        "top1_probability": share_N,
        "margin": share_N / 2,
        "log_z": np.zeros(frames, np.float32),
    }
    arrays = {
        "logits": np.log(share_N)[:, None].astype("<f2"),
        "logits_ids": top_N[:, None].astype("<u2"),
    }
    return TargetRows(arrays, columns, Fidelity.zeros(frames))


def write_quickly(table: pa.Table, path: Path) -> None:
    buffer = io.BytesIO()
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    pq.write_table(
        table,
        buffer,
        compression="lz4",
        use_dictionary=texts,
        write_statistics=False,
        store_schema=bool(table.schema.metadata),
    )
    atomic_write_bytes(path, buffer.getvalue())


def measure(root: Path, out: Path, *, page: bool) -> str:
    """Build the index of a cache, then audit it; in a process of its own.

    Returns a row of the table, without its last cell. With ``page``, the page is opened too.
    """
    started, cpu_started = time.perf_counter(), time.process_time()
    _ = TargetCache.open(root).index
    indexed, cpu_indexed, index_gb = time.perf_counter(), time.process_time(), peak_gb()
    result = audit(AuditConfig(cache=str(root), out=str(out)))
    ended, cpu_ended, audit_gb = time.perf_counter(), time.process_time(), peak_gb()
    page_mb = (out / "report.html").stat().st_size / 1e6
    check(root, result)
    times = page_times(out / "report.html") if page else None
    return (
        f"| {result.frames:,} | {result.videos:,} | {len(result.warnings)} "
        f"| {indexed - started:.1f} ({cpu_indexed - cpu_started:.1f}) "
        f"| {ended - indexed:.1f} ({cpu_ended - cpu_indexed:.1f}) "
        f"| {index_gb:.2f} | {audit_gb:.2f} | {page_mb:.1f} "
        + (f"| {times.first_paint_seconds:.2f} | {times.slider_seconds:.2f} " if times else "| | ")
    )


def peak_gb() -> float:
    """The high-water mark of resident memory of this process, mapped files included."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[0]) / 1e6


def check(root: Path, result: AuditResult) -> None:
    """Raise SystemExit unless duckdb finds the same numbers in the tables of the cache."""
    confidence = result.teachers[0].confidence
    curve = None if confidence is None else confidence.curve
    if curve is None:
        raise SystemExit("the audit has no threshold curve")
    place = len(curve.frames) // 2
    nats = (place + 1) * curve.step_nats
    (found,) = duckdb.execute(
        "SELECT count(*), count(DISTINCT top1_class) "
        f"FROM '{root}/teachers/simulated/confidence/*.parquet' WHERE entropy_nats <= {nats}"
    ).fetchall()
    expected = (curve.frames[place], curve.classes[place])
    if found != expected:
        raise SystemExit(f"at {nats} nats the audit has {expected}, duckdb {found}")


@click.command(help=__doc__)
@click.option(
    "--frames",
    multiple=True,
    default=(1_000_000, 10_000_000, 100_000_000),
    show_default=True,
    help="Simulated frames. Repeat the option for several caches.",
)
@click.option("--video-frames", default=300, show_default=True, help="Frames per video.")
@click.option("--folder", type=click.Path(path_type=Path), help="Folder to keep the caches in.")
@click.option("--page", is_flag=True, help="Also open the page in Chromium.")
@click.option("--measure", "only_measure", is_flag=True, hidden=True)
def main(
    frames: tuple[int, ...],
    video_frames: int,
    folder: Path | None,
    page: bool,
    only_measure: bool,
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        if only_measure and folder is not None:
            click.echo(measure(folder, Path(temporary) / "report", page=page), nl=False)
            return
        click.echo(TABLE_HEAD)
        for count in frames:
            root = (folder or Path(temporary)) / f"{count}-{video_frames}"
            started = time.perf_counter()
            if not (root / "manifest.json").is_file():
                write_cache(root, max(1, count // video_frames), video_frames)
            written = time.perf_counter()
            line = [sys.executable, __file__, "--measure", "--folder", str(root)]
            index = {"XDG_CACHE_HOME": f"{temporary}/index-{count}"}
            line += ["--page"] if page else []
            subprocess.run(line, env={**os.environ, **index}, check=True)
            click.echo(f"| {written - started:.0f} |")
            if folder is None:
                shutil.rmtree(root)


if __name__ == "__main__":
    main()
