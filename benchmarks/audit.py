"""Time and peak memory of the audit of a simulated cache.

    python benchmarks/audit.py [--frames N] [--folder FOLDER]

The cache is made up: videos of 300 frames, a teacher of 1,000 classes whose entropies differ
between videos and drift within them. Its tables are complete files of the format. The targets are
one logit per frame, because the audit does not read them without a frame store. The tables are
compressed less than those of an extraction, which is as fast to read and much faster to write.
``--folder`` keeps the cache. Prints the seconds to build the index (once per machine and cache) and
to audit, both as wall time and as CPU time, the kernel's high-water mark of resident memory (VmHWM)
and the size of the page.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from made_up_cache import made_up_teacher, made_up_video

from distinit.pipeline.cache.confidence import Fidelity
from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.target_rows import TargetRows
from distinit.pipeline.cache.unit import FrameRows
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.storage import atomic_write_bytes
from distinit.schemas.audit import AuditConfig
from distinit.schemas.base import sha256_of
from distinit.schemas.manifest import VideoOutcome
from distinit.schemas.video import SamplingConfig
from distinit.stages.audit import audit

VIDEO_FRAMES = 300
CLASSES = 1000
CAPACITY = 1 << 17
HIGHEST_NATS = float(np.log(CLASSES))


def write_cache(root: Path, videos: int) -> None:
    """Write a complete cache of ``videos`` videos."""
    teacher = made_up_teacher("simulated", CLASSES, encoding="topk:1")
    planned = [
        made_up_video(sha256_of(number), f"{number // 1000:04}/{number:07}.mp4", VIDEO_FRAMES)
        for number in range(videos)
    ]
    with (
        patch("distinit.pipeline.cache.unit.write_table", write_quickly),
        CacheWriter.create_or_open(
            root,
            videos=planned,
            sampling=SamplingConfig(),
            teachers={teacher.id: teacher},
            unit_rows=CAPACITY,
        ) as writer,
    ):
        for number, spec in enumerate(writer.pending_groups()):
            rng = np.random.default_rng(number)
            with GroupWriter(spec) as group:
                for video in spec.videos:
                    hash_N = rng.integers(2**63) ^ (1 << rng.integers(0, 63, VIDEO_FRAMES))
                    index_N = np.arange(VIDEO_FRAMES)
                    frames = FrameRows.of(video.video_id, "1/25", index_N, index_N, hash_N)
                    group.add_encoded(video, frames, {teacher.id: made_up_rows(rng)})
                    group.finish_video(
                        VideoOutcome(
                            video_id=video.video_id,
                            status="ok",
                            frame_count=VIDEO_FRAMES,
                            width=8,
                            height=8,
                            duration_seconds=VIDEO_FRAMES / 25,
                        )
                    )
                group.commit()
        writer.finalise()


def made_up_rows(rng: np.random.Generator) -> TargetRows:
    """The outputs for one video: entropies that drift, a few classes with a long tail."""
    drift_N = np.cumsum(rng.normal(0, 0.05, VIDEO_FRAMES)) + rng.normal(4, 1.2)
    entropy_N = np.clip(drift_N, 0.01, HIGHEST_NATS).astype(np.float32)
    classes = np.minimum(rng.pareto(0.7, 3) * 8, CLASSES - 1).astype(np.int32)
    top_N = np.repeat(classes, VIDEO_FRAMES // 3)
    share_N = np.exp(-entropy_N / 2)
    columns = {
        "entropy_nats": entropy_N,
        "top1_class": top_N,
        "top1_probability": share_N,
        "margin": share_N / 2,
        "log_z": np.zeros(VIDEO_FRAMES, np.float32),
    }
    arrays = {
        "logits": np.log(share_N)[:, None].astype("<f2"),
        "logits_ids": top_N[:, None].astype("<u2"),
    }
    return TargetRows(arrays, columns, Fidelity.zeros(VIDEO_FRAMES))


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


def measure(root: Path, out: Path) -> str:
    """Build the index of a cache, then audit it; in a process of its own."""
    started, cpu_started = time.perf_counter(), time.process_time()
    _ = TargetCache.open(root).index
    indexed, cpu_indexed = time.perf_counter(), time.process_time()
    result = audit(AuditConfig(cache=str(root), out=str(out)))
    ended, cpu_ended = time.perf_counter(), time.process_time()
    status = Path("/proc/self/status").read_text()
    peak_kb = int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[0])
    page_mb = (out / "report.html").stat().st_size / 1e6
    return (
        f"{result.frames:,} frames of {result.videos:,} videos: "
        f"index {indexed - started:.1f} s (CPU {cpu_indexed - cpu_started:.1f} s), "
        f"audit {ended - indexed:.1f} s (CPU {cpu_ended - cpu_indexed:.1f} s), "
        f"{peak_kb / 1e6:.2f} GB, page {page_mb:.1f} MB"
    )


@click.command(help=__doc__)
@click.option("--frames", default=3_000_000, show_default=True, help="Simulated frames.")
@click.option("--folder", type=click.Path(path_type=Path), help="Folder to keep the cache in.")
@click.option("--measure", "only_measure", is_flag=True, hidden=True)
def main(frames: int, folder: Path | None, only_measure: bool) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = folder or Path(temporary) / "cache"
        if only_measure:
            click.echo(measure(root, Path(temporary) / "report"))
            return
        if not (root / "manifest.json").is_file():
            write_cache(root, max(1, frames // VIDEO_FRAMES))
        subprocess.run([sys.executable, __file__, "--measure", "--folder", str(root)], check=True)


if __name__ == "__main__":
    main()
