"""Time to read the targets of one row, and how many flipped bits different checks find.

    python benchmarks/look_up.py [--units 64 --units 256 --units 1000] [--rows 8] [--json]

Builds caches with the given numbers of units (64 rows of made-up fp16 logits each) and reads
batches of rows from random places, as training does. The rows of a batch are in different units.

- open: the first row that a process reads from a unit, so its file is opened and its index read;
- touch: the first row of another inner chunk of 16 rows, from files in the page cache;
- cold: as touch, after the kernel was asked to drop the files from its page cache (elapsed time;
  the others are processor time, which depends less on other work on the machine);
- warm: rows of chunks that were read before;
- logsumexp: the additional time to compare the logsumexp of a warm row with its stored log_z.

Then single bits are flipped in stored rows. The benchmark counts how many of them a crc32c of the
chunk finds, and how many change the logsumexp by more than the rounding of fp16.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from made_up_cache import made_up_teacher, write_made_up_cache

from distinit.pipeline.cache.arrays import INNER_ROWS
from distinit.pipeline.cache.confidence import confidence_of, log_softmax
from distinit.pipeline.cache.encoding import decode, encode
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.shards import crc32c

CAPACITY = 64
FLOAT16_STEP = 2.0**-11  # half a unit in the last place, relative
SLACK_NATS = 1e-4  # fp32 rounding of the stored log_z


def microseconds(
    read: Callable[[np.ndarray], object],
    batches_BN: np.ndarray,
    clock: Callable[[], float] = time.process_time,
) -> float:
    """Return the microseconds per row of reading these batches."""
    began = clock()
    for rows_N in batches_BN:
        read(rows_N)
    return 1e6 * (clock() - began) / batches_BN.size


def batches_of(units: int, rows: int, chunk: int, rng: np.random.Generator) -> np.ndarray:
    """Return batches [B, rows] with one row of this inner chunk per unit, in random unit order."""
    unit_N = rng.permutation(units)[: units // rows * rows]
    inside_N = chunk * INNER_ROWS + rng.integers(0, INNER_ROWS, len(unit_N))
    return (unit_N * CAPACITY + inside_N).reshape(-1, rows)


def drop_from_page_cache(root: Path) -> None:
    """Ask the kernel to drop the shards; unwritten pages would stay, so sync first."""
    os.sync()
    for path in root.rglob("c/*/0"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def check_log_z(logits_NC: np.ndarray, log_z_N: np.ndarray) -> None:
    """Check rows by their logsumexp, the alternative to crc32c. Costs the same at every read."""
    peak_N1 = logits_NC.max(axis=1, keepdims=True)
    found_N = peak_N1[:, 0] + np.log(np.exp(logits_NC - peak_N1).sum(axis=1))
    largest_N = np.abs(logits_NC).max(axis=1)
    if (np.abs(found_N - log_z_N) > largest_N * FLOAT16_STEP + SLACK_NATS).any():
        raise click.ClickException("an intact row looks damaged")


def measure(root: Path, units: int, rows: int, repetitions: int) -> dict[str, float]:
    """Return microseconds per row: the minimum over repetitions, each with a new reader."""
    runs = [_measure_once(root, units, rows, seed) for seed in range(repetitions)]
    return {name: min(run[name] for run in runs) for name in runs[0]}


def _measure_once(root: Path, units: int, rows: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    cache = TargetCache.open(root)
    _ = cache.index
    targets = cache.targets("made-up")
    per_row = {
        name: microseconds(targets.logits, batches_of(units, rows, chunk, rng))
        for chunk, name in enumerate(("open", "touch"))
    }
    drop_from_page_cache(root)
    per_row["cold"] = microseconds(
        targets.logits, batches_of(units, rows, 2, rng), time.perf_counter
    )
    targets.logits(np.arange(0, units * CAPACITY, INNER_ROWS))
    warm_BN = np.concatenate([batches_of(units, rows, chunk, rng) for chunk in (0, 1, 2, 3)])
    per_row["warm"] = microseconds(targets.logits, warm_BN)
    logits_NC = targets.logits(warm_BN[0])
    log_z_N = log_softmax(logits_NC)[1].astype(np.float32)
    per_row["logsumexp"] = microseconds(lambda _: check_log_z(logits_NC, log_z_N), warm_BN)
    return per_row


def detection_rates(flips: int, classes: int) -> dict[str, float]:
    """Return the share of single flipped bits in 16 rows that each check finds."""
    rng = np.random.default_rng(2)
    logits_NC = 3 * rng.standard_normal((INNER_ROWS, classes), np.float32)
    log_z_N = confidence_of(logits_NC).log_z
    stored_NC = encode(logits_NC, "float16").arrays["logits"]
    intact = crc32c(stored_NC)
    found = {"crc32c": 0, "logsumexp": 0}
    for _ in range(flips):
        row, place = rng.integers(INNER_ROWS), rng.integers(classes)
        damaged_NC = stored_NC.copy()
        damaged_NC.view(np.uint16)[row, place] ^= np.uint16(1 << rng.integers(16))
        found["crc32c"] += crc32c(damaged_NC) != intact
        decoded_1C = decode({"logits": damaged_NC[row : row + 1]}, "float16", classes)
        with np.errstate(all="ignore"):
            difference = abs(float(log_softmax(decoded_1C)[1][0]) - float(log_z_N[row]))
            bound = float(np.abs(decoded_1C).max()) * FLOAT16_STEP + SLACK_NATS
        found["logsumexp"] += not difference <= bound
    return {name: count / flips for name, count in found.items()}


@click.command(help=__doc__)
@click.option(
    "--units",
    "sizes",
    multiple=True,
    type=click.IntRange(8),
    default=(64, 256, 1000),
    help="Number of units; repeat for several sizes.",
)
@click.option(
    "--rows", default=8, show_default=True, type=click.IntRange(1, 8), help="Rows per batch."
)
@click.option(
    "--classes", default=1000, show_default=True, type=click.IntRange(2), help="Logits per row."
)
@click.option(
    "--repetitions", default=5, show_default=True, type=click.IntRange(1), help="Measurements."
)
@click.option(
    "--flips", default=2000, show_default=True, type=click.IntRange(1), help="Bits to flip."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    sizes: tuple[int, ...], rows: int, classes: int, repetitions: int, flips: int, as_json: bool
) -> None:
    table = {}
    with tempfile.TemporaryDirectory(prefix="distinit-look-up-") as folder:
        for units in sizes:
            root = Path(folder) / str(units)
            teacher = made_up_teacher("made-up", classes)
            write_made_up_cache(root, [CAPACITY] * units, [teacher], CAPACITY)
            table[units] = measure(root, units, rows, repetitions)
            if not as_json:
                shown = "  ".join(f"{name} {value:6.1f}" for name, value in table[units].items())
                click.echo(f"{units:5} units, us per row:  {shown}")
    found = detection_rates(flips, classes)
    if as_json:
        click.echo(json.dumps({"microseconds": table, "found": found}))
        return
    for name, share in found.items():
        click.echo(f"of {flips} flipped bits {name} finds {100 * share:.1f} %")


if __name__ == "__main__":
    main()
