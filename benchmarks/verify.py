"""Measure how fast ``cache verify`` reads a made-up cache, and what limits it.

    python benchmarks/verify.py
    python benchmarks/verify.py --megabytes 2000 --workers 1,2,4,8 --encoding int8 --json
    python benchmarks/verify.py --target features

The files are in memory (the page cache): no disk is measured. ``sha256`` hashes the same bytes
once; the whole check hashes them as files and as values, checks every crc32c, and recomputes the
confidence of every row, or the mean and covariance of features. With one thread, seconds are those
of the CPU, so that other processes matter little; with more, they are those of a clock.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
from made_up_cache import made_up_teacher, write_made_up_cache

from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.option_types import NUMBERS
from distinit.schemas.wording import counted

_CLASSES = 1000
_CAPACITY = 32_768  # rows of a unit of any large cache
_BYTES_PER_VALUE = {"float16": 2, "int8": 1, "topk:32": 4 * 32 / _CLASSES}


def seconds_of(work: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """Return the shortest of ``repeats`` runs, seconds of ``clock``."""
    work()  # imports, and reads the files into the page cache
    times = []
    for _ in range(repeats):
        began = clock()
        work()
        times.append(clock() - began)
    return min(times)


def hash_all(root: Path) -> None:
    """Hash every file once, in one thread."""
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")


def check(root: Path, workers: int) -> None:
    """Verify the cache, which must have no problems."""
    if problems := verify_cache(root, workers=workers).problems:
        raise click.ClickException(problems[0])


@click.command(help=__doc__)
@click.option("--megabytes", type=click.IntRange(1), default=500, show_default=True)
@click.option(
    "--encoding", type=click.Choice(list(_BYTES_PER_VALUE)), default="float16", show_default=True
)
@click.option(
    "--target", type=click.Choice(["logits", "features"]), default="logits", show_default=True
)
@click.option("--workers", type=NUMBERS, default="1,2", show_default=True, help="Threads to try.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    megabytes: int,
    encoding: str,
    target: str,
    workers: tuple[int, ...],
    repeats: int,
    as_json: bool,
) -> None:
    rows = int(megabytes * 1e6 / (_CLASSES * _BYTES_PER_VALUE[encoding]))
    with tempfile.TemporaryDirectory(prefix="distinit-verify-") as folder:
        root = Path(folder) / "cache"
        videos = [2048] * max(rows // 2048, 1)
        teacher = made_up_teacher("t", _CLASSES, encoding, target)
        write_made_up_cache(root, videos, [teacher], _CAPACITY)
        gigabytes = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) / 1e9
        hashing = seconds_of(lambda: hash_all(root), repeats, time.process_time)
        rates = {"sha256, 1 thread": gigabytes / hashing}
        for count in workers:
            clock = time.process_time if count == 1 else time.perf_counter
            seconds = seconds_of(partial(check, root, count), repeats, clock)
            rates[f"whole check, {counted(count, 'thread')}"] = gigabytes / seconds
    if as_json:
        click.echo(json.dumps({"gigabytes": gigabytes, "gigabytes_per_second": rates}))
        return
    click.echo(f"{gigabytes:.2f} GB, {sum(videos)} rows of {_CLASSES} {target} as {encoding}")
    for name, rate in rates.items():
        click.echo(f"{name:24} {rate:5.2f} GB/s")


if __name__ == "__main__":
    main()
