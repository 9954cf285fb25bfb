"""Time and memory to open a large cache or refuse it, and time to read rows at random.

    python benchmarks/cache.py [--frames 100000000] [--units 256] [--json]

- open: a simulated cache of 1e6 and of ``--frames`` frames. Its plan, its records and its commits
  are real; its tables and shards do not exist, because nothing here reads them. Each action runs
  in a process of its own that has imported the reader already: opening the cache, refusing it for
  six reasons, and mapping its derived index to look up clips. Seconds, and the MiB by which the
  peak of resident memory grows.
- read: a complete cache of ``--units`` units of 64 rows. Microseconds per row of random batches of
  64 rows, for one row alone, and for a clip of 8 rows that follow each other in one unit; warm,
  which means that the process has read all chunks before. The same rows through the Zarr API.

The times of open are elapsed times; those of read are processor times of one thread (and of those
that Zarr starts), which depend less on other work. The fastest of several repetitions counts.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import zarr
from made_up_cache import made_up_teacher, write_made_up_cache

from distinit.pipeline.cache.arrays import write_array_metadata
from distinit.pipeline.cache.encoding import array_specs
from distinit.pipeline.cache.index import index_key
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.records import expected_files, read_commit, read_manifest, read_teacher
from distinit.pipeline.cache.state import summary_of
from distinit.pipeline.cache.tables import write_table
from distinit.pipeline.derived import derive_columns, index_folder, new_column
from distinit.pipeline.records import write_record
from distinit.schemas.errors import DistInitError
from distinit.schemas.manifest import FileEntry, RowSpace
from distinit.schemas.tables import PLAN_SCHEMA

CAPACITY = 32_768
VIDEO_FRAMES = 256
CLASSES = 1_000
CLIP_ROWS = 8
TEACHER = "made-up"
_INDEX_VERSION = 2
_SMALL_FRAMES = 1_000_000
_BLOCK_ROWS = 1 << 22

type Action = Callable[[Path], object]


def simulate(root: Path, frames: int) -> None:
    """Write the records, the plan and the derived index of a cache with this many frames."""
    write_made_up_cache(root, [VIDEO_FRAMES], [made_up_teacher(TEACHER, CLASSES)], CAPACITY)
    layout = CacheLayout(root)
    manifest, record = read_manifest(layout), read_teacher(layout, TEACHER)
    commit, units = read_commit(layout, record, 0), -(-frames // CAPACITY)
    for unit in range(units):
        files = expected_files(layout, record, unit, CAPACITY)
        entries = dict.fromkeys(files, FileEntry(size=1, sha256="0" * 64))
        found = {"unit": unit, "rows": CAPACITY, "files": entries}
        write_record(commit.model_copy(update=found).resealed(), layout.commit(TEACHER, unit))
    for spec in array_specs(record.encoding, CLASSES):
        write_array_metadata(layout.array(TEACHER, spec.name), spec, units * CAPACITY, CAPACITY)
    write_table(_plan(units), layout.plan)
    space = RowSpace(capacity=CAPACITY, units=units, rows=units * CAPACITY)
    teachers = {TEACHER: summary_of(record, units)}
    changed = manifest.model_copy(update={"row_space": space, "teachers": teachers})
    write_record(changed, layout.manifest)
    layout.checksums.unlink()
    folder = index_folder(index_key(layout, space, {TEACHER: record}))
    derive_columns(folder, _INDEX_VERSION, lambda partial: _index(partial, units))


def _plan(units: int) -> pa.Table:
    """A plan that fills every unit with videos of VIDEO_FRAMES frames."""
    count = units * CAPACITY // VIDEO_FRAMES
    number_V = np.arange(count)
    ids = [f"{number:016x}" for number in range(count)]
    zero_V = np.zeros(count, np.int64)
    columns = {
        "video_id": ids,
        "path": [f"{video_id}.mp4" for video_id in ids],
        "digest": [video_id + "0" * 48 for video_id in ids],
        "size_bytes": zero_V,
        "mtime_ns": zero_V,
        "probed_frames": zero_V + VIDEO_FRAMES,
        "probed_fps": np.full(count, 25.0),
        "first_row": number_V * VIDEO_FRAMES,
        "reserved_rows": zero_V + VIDEO_FRAMES,
        "task": number_V * VIDEO_FRAMES // CAPACITY,
        "in_corpus": np.ones(count, bool),
    }
    metadata = {"capacity": str(CAPACITY), "base_videos": str(count)}
    return pa.table(columns, schema=PLAN_SCHEMA.with_metadata(metadata))


def _index(folder: Path, units: int) -> None:
    """The columns that reading all tables would give."""
    rows = units * CAPACITY
    count = rows // VIDEO_FRAMES
    ids_V = np.array([f"{number:016x}".encode() for number in range(count)])
    small = {
        "video_ids": ids_V,
        "first_row": np.arange(count) * VIDEO_FRAMES,
        "row_count": np.full(count, VIDEO_FRAMES),
        f"committed-{TEACHER}": np.ones(units, bool),
        f"unanswered-{TEACHER}": np.zeros(0, np.int64),
    }
    for name, values in small.items():
        np.save(folder / f"{name}.npy", values, allow_pickle=False)
    frame_index = new_column(folder, "frame_index", rows, np.int32)
    video_number = new_column(folder, "video_number", rows, np.int32)
    entropy = new_column(folder, f"entropy_nats-{TEACHER}", rows, np.float32)
    for start in range(0, rows, _BLOCK_ROWS):
        row_N = np.arange(start, min(start + _BLOCK_ROWS, rows))
        part = slice(start, start + len(row_N))
        frame_index[part], video_number[part] = row_N % VIDEO_FRAMES, row_N // VIDEO_FRAMES
        entropy[part] = row_N % 7


def _look_up(root: Path) -> None:
    index = TargetCache.open(root).index
    rng = np.random.default_rng(0)
    number_N = rng.integers(0, len(index.video_ids), 256)
    frame_NT = rng.integers(0, VIDEO_FRAMES - CLIP_ROWS, 256)[:, None] + np.arange(CLIP_ROWS)
    rows_NT = index.rows_of_videos(number_N, frame_NT)
    if not np.array_equal(rows_NT, number_N[:, None] * VIDEO_FRAMES + frame_NT):
        raise click.ClickException("the index gave other rows")


def _with_manifest(name: str, change: Callable[[dict[str, Any]], object]) -> Action:
    """Open the cache with a changed copy of a record in the place of the intact one."""

    def refuse(root: Path) -> None:
        path = root / name
        intact = path.read_bytes()
        record = json.loads(intact)
        change(record)
        try:
            path.write_text(json.dumps(record))
            TargetCache.open(root)
        finally:
            path.write_bytes(intact)

    return refuse


_RECORD = f"teachers/{TEACHER}/teacher.json"
OPENED: dict[str, Action] = {"open": TargetCache.open, "open, look up 256 clips": _look_up}
REFUSED: dict[str, Action] = {
    "unknown teacher": lambda root: TargetCache.open(root).targets("another"),
    "another format": _with_manifest("manifest.json", lambda m: m.update(format_version=3)),
    "an unknown key": _with_manifest("manifest.json", lambda m: m.update(another=1)),
    "not complete": _with_manifest("manifest.json", lambda m: m.update(complete=False)),
    "another encoding": _with_manifest(_RECORD, lambda r: r.update(encoding="int8")),
    "more units": _with_manifest("manifest.json", lambda m: m["row_space"].update(units=9_999)),
}


def measured(action: Action, root: Path, refused: bool) -> dict[str, float]:
    """Seconds and MiB of one action, in a child process."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(action, root, refused, send))
    child.start()
    send.close()
    try:
        result: dict[str, float] = receive.recv()
    except EOFError as error:
        raise click.ClickException(f"{root}: an action ended without a result") from error
    finally:
        child.join()
    return result


def _child(action: Action, root: Path, refused: bool, send: Any) -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, outcome = time.perf_counter(), False
    try:
        action(root)
    except DistInitError:
        outcome = True
    seconds = time.perf_counter() - began
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    if outcome == refused:
        send.send({"seconds": seconds, "mib": grown_kib / 1024})


def open_table(root: Path, frames: int, repetitions: int) -> dict[str, dict[str, float]]:
    """Seconds and MiB of opening and refusing a simulated cache."""
    simulate(root, frames)
    table = {}
    for actions, refused in ((OPENED, False), (REFUSED, True)):
        for name, action in actions.items():
            runs = [measured(action, root, refused) for _ in range(repetitions)]
            table[name] = {key: min(run[key] for run in runs) for key in runs[0]}
    return table


def read_table(root: Path, units: int, repetitions: int) -> dict[str, dict[str, float]]:
    """Microseconds of reading a row and a clip, directly and through Zarr."""
    write_made_up_cache(root, [64] * units, [made_up_teacher(TEACHER, CLASSES)], 64)
    cache = TargetCache.open(root)
    targets, array = cache.targets(TEACHER), cache.zarr_array(TEACHER)
    targets.logits(np.arange(0, units * 64, 16))  # verifies every chunk
    rng = np.random.default_rng(0)
    first_N = rng.integers(0, units, 512) * 64 + rng.integers(0, 64 - CLIP_ROWS, 512)
    kinds = {
        "row, of random batches of 64": (rng.integers(0, units * 64, (64, 64)), 64),
        "row alone": (first_N[:, None], 1),
        "clip of 8 rows": (first_N[:, None] + np.arange(CLIP_ROWS), 1),
    }
    table = {}
    for name, (rows_BN, parts) in kinds.items():
        direct = [_microseconds(targets.logits, rows_BN) for _ in range(4 * repetitions)]
        through_zarr = [_microseconds(_through(array), rows_BN[:16]) for _ in range(repetitions)]
        found = {"direct": min(direct) / parts, "zarr": min(through_zarr) / parts}
        table[name] = found | {"ratio": found["zarr"] / found["direct"]}
    return table


def _through(array: zarr.Array[Any]) -> Callable[[np.ndarray], object]:
    """Reads rows through the Zarr API; each once, in ascending order, which is its best case."""
    return lambda rows_N: array.oindex[np.unique(rows_N)]


def _microseconds(read: Callable[[np.ndarray], object], rows_BN: np.ndarray) -> float:
    """Processor time per batch."""
    began = time.process_time()
    for rows_N in rows_BN:
        read(rows_N)
    return 1e6 * (time.process_time() - began) / len(rows_BN)


@click.command(help=__doc__)
@click.option(
    "--frames", default=100_000_000, show_default=True, type=click.IntRange(1), help="Frames."
)
@click.option("--units", default=256, show_default=True, type=click.IntRange(1), help="Units.")
@click.option("--repetitions", default=5, show_default=True, type=click.IntRange(1), help="Runs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(frames: int, units: int, repetitions: int, as_json: bool) -> None:
    opened = {}
    with tempfile.TemporaryDirectory(prefix="distinit-bench-cache-") as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/home"
        for size in dict.fromkeys((min(_SMALL_FRAMES, frames), frames)):
            root = Path(folder) / str(size)
            opened[size] = open_table(root, size, repetitions)
            shutil.rmtree(root)
            shutil.rmtree(f"{folder}/home")
        read = read_table(Path(folder) / "read", units, repetitions)
    if as_json:
        click.echo(json.dumps({"open": opened, "read": read}))
        return
    for size, table in opened.items():
        for name, cell in table.items():
            click.echo(
                f"{size:>11,} frames  {name:30}{cell['seconds']:8.3f} s{cell['mib']:8.1f} MiB"
            )
    for name, cell in read.items():
        times = f"{cell['direct']:8.1f} us  zarr {cell['zarr']:8.1f} us"
        click.echo(f"{name:30}{times}  {cell['ratio']:5.0f} x")


if __name__ == "__main__":
    main()
