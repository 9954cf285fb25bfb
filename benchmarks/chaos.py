"""Kill an extraction at random times, resume it, and compare digests with an undisturbed run.

    python benchmarks/chaos.py --kills 200
    python benchmarks/chaos.py --kills 25 --workers 2 --json

Each attempt resumes the cache of the previous one. At a random time, either one of its processes
(the driver, an ffmpeg, a Ray worker) gets SIGKILL, or the driver gets SIGINT. If an attempt
finishes before that, its digest is compared and the next attempt starts a new cache. The null
teacher and videos of 64x48 make the attempts short, so that kills hit every phase: listing,
probing, planning, decoding, committing, finishing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.video.binary import find_ffmpeg
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import extract

_MARK = "DISTINIT_CHAOS"
# The fork server has imported everything, so an attempt starts in milliseconds.
_SERVER = multiprocessing.get_context("forkserver")


@dataclass
class Outcome:
    """Counts over all attempts."""

    kills: Counter[str] = field(default_factory=Counter)
    caches: int = 0  # finished
    equal: int = 0  # of these, with the digest of the undisturbed run
    problems: list[str] = field(default_factory=list)  # reported by verify_cache, and orphans
    slowest_orphan_seconds: float = 0.0


def make_corpus(root: Path, videos: int) -> None:
    """Create small videos of 8 to 130 frames; one in eight is truncated."""
    root.mkdir(parents=True)
    for number in range(videos):
        path = root / f"{number:03}.mp4"
        source = f"testsrc2=size=64x48:rate=10,hue=h={number * 17}"
        length = ["-frames:v", str(8 + number * 37 % 123)]
        command = [str(find_ffmpeg().path), "-v", "error", "-f", "lavfi", "-i", source, *length]
        subprocess.run([*command, "-pix_fmt", "yuv420p", f"file:{path}"], check=True)
        if number % 8 == 7:
            path.write_bytes(path.read_bytes()[:-500])


def config_of(corpus: Path, out: Path, workers: int) -> dict[str, Any]:
    """Configure units of 64 rows. Kills from outside must not count against a video."""
    return {
        "videos": str(corpus),
        "teachers": [{"name": "null"}],
        "cache": str(out / "cache"),
        "frames": str(out / "frames"),
        "unit_rows": 64,
        "compute": {"workers": workers, "max_attempts": 1000},
    }


def attempt(config: dict[str, Any], mark: str) -> None:
    """Run the extraction once, as the driver process that may be killed."""
    os.environ[_MARK] = mark
    try:
        extract(ExtractConfig.model_validate(config))
    except KeyboardInterrupt:
        os._exit(130)


def processes(mark: str) -> Iterator[tuple[int, str]]:
    """Yield pid and kind (worker, ffmpeg, other) of all processes that a driver has started."""
    needle = f"{_MARK}={mark}".encode()
    for folder in Path("/proc").iterdir():
        try:
            if not folder.name.isdigit() or needle not in (folder / "environ").read_bytes():
                continue
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        kind = "worker" if "ray::DistInitWorker" in line else "other"
        yield int(folder.name), "ffmpeg" if "framecrc" in line else kind


def strike(driver: Any, mark: str, rng: random.Random, workers: int) -> str:
    """Kill one process, chosen by kind first. Returns the kind, "" if the driver ended before."""
    kind = rng.choice(["driver", "interrupt", "ffmpeg", *(["worker"] if workers else [])])
    pids = [driver.pid]
    if kind in ("ffmpeg", "worker"):
        while not (pids := [pid for pid, found in processes(mark) if found == kind]):
            if not driver.is_alive():
                return ""
    try:
        os.kill(rng.choice(pids), signal.SIGINT if kind == "interrupt" else signal.SIGKILL)
    except ProcessLookupError:
        return ""
    return kind


def await_orphans(mark: str, outcome: Outcome) -> None:
    """Measure how long processes outlive their dead driver; more than 10 s is a problem."""
    began = time.monotonic()
    while left := list(processes(mark)):
        if time.monotonic() - began > 10:
            outcome.problems.append(f"{len(left)} processes outlived their driver by 10 s")
            return
        time.sleep(0.02)
    lived = time.monotonic() - began
    outcome.slowest_orphan_seconds = max(outcome.slowest_orphan_seconds, lived)


def one_attempt(
    config: dict[str, Any], mark: str, seconds: float, rng: random.Random, outcome: Outcome
) -> bool:
    """Run once, with one kill at a random time. Returns True if the run finished."""
    workers = config["compute"]["workers"]
    driver = _SERVER.Process(target=attempt, args=(config, mark))
    driver.start()
    driver.join(rng.uniform(0, seconds))
    kind = strike(driver, mark, rng, workers) if driver.is_alive() else ""
    outcome.kills.update([kind] if kind else [])
    driver.join()
    expected = {
        "driver": (-signal.SIGKILL,),
        "interrupt": (130, 1),
    }  # 1: before the driver handles signals
    if driver.exitcode not in (0, *expected.get(kind, ())):
        outcome.problems.append(f"an attempt ended with {driver.exitcode}")
    if driver.exitcode != 0:
        await_orphans(mark, outcome)
    return driver.exitcode == 0


def seconds_undisturbed(config: dict[str, Any], mark: str) -> float:
    """Time an undisturbed attempt. Kills happen within this time."""
    server = _SERVER.Process(
        target=int
    )  # the first process waits until the server has imported everything
    server.start()
    server.join()
    began = time.monotonic()
    driver = _SERVER.Process(target=attempt, args=(config, mark))
    driver.start()
    driver.join()
    if driver.exitcode != 0:
        raise click.ClickException(f"the undisturbed run ended with {driver.exitcode}")
    return time.monotonic() - began


def chaos(corpus: Path, work: Path, kills: int, workers: int, seed: int) -> Outcome:
    """Run attempts until ``kills`` processes were killed, then finish the last cache."""
    rng, outcome, mark = random.Random(seed), Outcome(), str(corpus)
    seconds = seconds_undisturbed(config_of(corpus, work / "undisturbed", workers), mark)
    undisturbed = extract(ExtractConfig.model_validate(config_of(corpus, work / "undisturbed", 0)))
    while sum(outcome.kills.values()) < kills:
        out = work / f"cache-{outcome.caches}"
        config = config_of(corpus, out, workers)
        while sum(outcome.kills.values()) < kills:
            if one_attempt(config, mark, seconds, rng, outcome):
                break
        # Without Ray. A complete cache is only read; an incomplete one is finished.
        result = extract(ExtractConfig.model_validate(config_of(corpus, out, 0)))
        outcome.caches += 1
        outcome.equal += result.content_digest == undisturbed.content_digest
        outcome.problems += verify_cache(out / "cache").problems
        shutil.rmtree(out)
        done = dict(sorted(outcome.kills.items()))
        click.echo(f"caches {outcome.caches}, equal {outcome.equal}, kills {done}", err=True)
    return outcome


@click.command(help=__doc__)
@click.option(
    "--kills", type=click.IntRange(1), default=25, show_default=True, help="Processes to kill."
)
@click.option(
    "--workers",
    type=int,
    default=0,
    show_default=True,
    help="Number of Ray workers; 0 runs without Ray.",
)
@click.option(
    "--videos", type=click.IntRange(1), default=16, show_default=True, help="Videos to create."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(kills: int, workers: int, videos: int, seed: int, as_json: bool) -> None:
    began = time.monotonic()
    _SERVER.set_forkserver_preload(["distinit.stages.extract", "distinit.pipeline.cache.verify"])
    with tempfile.TemporaryDirectory(prefix="distinit-chaos-") as folder:
        corpus = Path(folder) / "corpus"
        make_corpus(corpus, videos)
        outcome = chaos(corpus, Path(folder), kills, workers, seed)
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        click.echo(json.dumps({**vars(outcome), "workers": workers, "seconds": seconds}))
    else:
        for kind, count in sorted(outcome.kills.items()):
            click.echo(f"{count:>5}  {kind} killed")
        click.echo(f"{outcome.caches:>5}  caches finished")
        click.echo(f"{outcome.equal:>5}  of these, with the digest of the undisturbed run")
        click.echo(f"{len(outcome.problems):>5}  problems {outcome.problems[:5]}")
        click.echo(
            f"longest life of an orphan {outcome.slowest_orphan_seconds:.2f} s; total {seconds} s"
        )
    if outcome.problems or outcome.equal != outcome.caches:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
