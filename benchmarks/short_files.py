"""Cost of a file in a corpus of many short ones: milliseconds, and where the CPU time goes.

    python benchmarks/short_files.py [--files 300] [--repeats 3] [--json]

Makes clips of 24 frames at 64x64 (H.264 in mp4) and extracts them with the null teacher. In such a
corpus, what is done once per file weighs more than what is done per frame: starting ffmpeg to probe
and to decode, threads and pipes, and records.

Probing alone and the whole extraction take turns; the results are medians. CPU time counts this
process (*Python*) and the processes that it has started and that have ended (*ffmpeg*). It hardly
depends on other work on the machine, unlike *wall*.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import click

from distinit.pipeline.corpus.listing import list_corpus
from distinit.pipeline.extraction.probing import Prober, plan_videos
from distinit.pipeline.video.binary import find_ffmpeg
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import extract

FRAMES, SIDE, FPS = 24, 64, 24


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds per file: elapsed, CPU of this process, CPU of its ffmpeg processes."""

    wall_ms: float
    python_ms: float
    ffmpeg_ms: float

    @classmethod
    def of(cls, work: Callable[[], object], files: int) -> Costs:
        """The costs of ``work``."""
        before, began = os.times(), time.perf_counter()
        work()
        seconds, after = time.perf_counter() - began, os.times()
        used = [late - early for early, late in zip(before, after, strict=True)]
        python, ffmpeg = used[0] + used[1], used[2] + used[3]
        return cls(*(1000 * value / files for value in (seconds, python, ffmpeg)))

    @classmethod
    def median(cls, laps: list[Costs]) -> Costs:
        """The median of each."""
        return cls(*(statistics.median(getattr(lap, f.name) for lap in laps) for f in fields(cls)))


def make_clips(folder: Path, count: int) -> Path:
    """Encode ``count`` different clips into ``folder``."""

    def make(number: int) -> None:
        source = f"testsrc2=size={SIDE}x{SIDE}:rate={FPS},hue=h={number}*37"
        argv = [str(find_ffmpeg().path), "-nostdin", "-v", "error", "-f", "lavfi", "-i", source]
        argv += ["-frames:v", str(FRAMES), "-metadata", f"comment={number}", "-pix_fmt", "yuv420p"]
        subprocess.run([*argv, "-threads", "1", str(folder / f"{number:05d}.mp4")], check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(make, range(count)))
    return folder


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """The costs per file of probing, of the whole extraction, and of what is not probing."""
    config = ExtractConfig.model_validate(
        {"videos": str(folder), "teachers": [{"name": "null"}], "cache": "(made for each lap)"}
    )
    corpus = list_corpus(config.videos)
    count = len(corpus.files)
    laps: dict[str, list[Costs]] = {"probe": [], "whole": []}

    def probe() -> None:
        prober = Prober(config.decode, config.sampling)
        for _ in plan_videos(prober, corpus.source, corpus.files):
            pass

    def whole() -> None:
        with tempfile.TemporaryDirectory() as out:
            extract(config.model_copy(update={"cache": f"{out}/cache"}))

    for _ in range(repeats):
        laps["probe"].append(Costs.of(probe, count))
        laps["whole"].append(Costs.of(whole, count))
    found = {name: Costs.median(costs) for name, costs in laps.items()}
    return {"files": count, "frames": FRAMES, "repeats": repeats} | {
        name: asdict(costs) for name, costs in found.items()
    }


def describe(found: dict[str, Any]) -> str:
    """Format the result as text."""
    probe, whole = found["probe"], found["whole"]
    lines = [f"{found['files']} files of {found['frames']} frames, milliseconds per file"]
    lines.append(f"  {'':<12}{'wall':>9}{'CPU':>9}{'Python':>9}{'ffmpeg':>9}")
    rest = {name: whole[name] - probe[name] for name in whole}
    for name, costs in (("probe", probe), ("the rest", rest), ("whole", whole)):
        cpu = costs["python_ms"] + costs["ffmpeg_ms"]
        values = (costs["wall_ms"], cpu, costs["python_ms"], costs["ffmpeg_ms"])
        lines.append(f"  {name:<12}" + "".join(f"{value:9.1f}" for value in values))
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--files", default=300, show_default=True, type=click.IntRange(min=1))
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(files: int, repeats: int, as_json: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = measure(make_clips(Path(folder), files), repeats)
    click.echo(json.dumps(found) if as_json else describe(found))


if __name__ == "__main__":
    main()
