"""Compare reading clips from the frame store with decoding them from the videos (PyAV).

    python benchmarks/frames.py VIDEO ... [--clips 100] [--json]

Clips are drawn as an epoch draws them: a random video, a random start. Both methods deliver uint8
RGB at the store's size, in one thread of one process, and take turns every 32 clips. PyAV opens the
file, seeks to the keyframe before the clip and decodes up to its last frame. An epoch visits videos
in random order, so no file is already open. Goal: 50 times as many clips per second of CPU time,
which depends less on other work on the machine than elapsed time.

Videos for which PyAV and the store disagree on the number of frames are left out, and so are clips
for which PyAV decodes different pictures (some files seek inaccurately). Both are counted.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any

import av
import click
import numpy as np
import torch

from distinit.pipeline.corpus.listing import list_corpus
from distinit.pipeline.frames.build import build_store
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import NullProgress
from distinit.schemas.errors import DistInitError
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.video import DecodeConfig

GOAL = 50.0
FRAMES = 8
WARM_UP = 10
ROUND = 32  # clips read by one method before the other takes its turn
SAME_PICTURES = 8.0  # levels of 255; JPEG and a different scaler cause 1 to 4

type Times = tuple[list[int], list[tuple[int, int]]]
"""Timestamps of all frames, and (pts, dts) of the keyframes."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames ``first`` to ``first + FRAMES - 1`` of a video."""

    path: Path
    video_id: str
    first: int
    first_pts: int
    seek_dts: int
    """Decoding time (seeks use it) of the last keyframe shown at or before ``first_pts``."""


@dataclass(frozen=True, slots=True)
class Timed:
    """Milliseconds for one clip, elapsed and CPU, and how much the pixels differ."""

    path: Path
    store_ms: float
    store_cpu_ms: float
    video_ms: float
    video_cpu_ms: float
    pixel_difference: float
    """Mean difference in levels; infinite if PyAV returned fewer frames."""


def frame_times(path: Path) -> Times:
    """Return the timestamps of all frames in display order, and (pts, dts) of the keyframes.

    All times are in the stream's time base.
    """
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
    keys = [(p.pts, p.pts if p.dts is None else p.dts) for p in packets if p.is_keyframe]
    return sorted(p.pts for p in packets), keys


def decode_clip(clip: Clip, height: int, width: int) -> torch.Tensor:
    """Decode uint8 [FRAMES, 3, height, width] directly from the video."""
    frames = []
    with av.open(str(clip.path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        container.seek(clip.seek_dts, stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.pts >= clip.first_pts:
                small = frame.reformat(width=width, height=height, format="rgb24")
                frames.append(torch.from_numpy(small.to_ndarray()).permute(2, 0, 1))
            if len(frames) == FRAMES:
                break
    return torch.stack(frames) if frames else torch.empty(0)


def comparable(store: FrameStore, paths: Mapping[str, Path]) -> dict[str, Times]:
    """Return ``frame_times`` of the videos for which PyAV and the store count the same frames."""
    times = {video_id: frame_times(path) for video_id, path in paths.items()}
    counts = {video_id: store.videos[video_id].frame_count for video_id in times}
    return {
        video_id: found
        for video_id, found in times.items()
        if len(found[0]) == counts[video_id] >= FRAMES and found[1]
    }


def draw_clips(
    store: FrameStore, paths: Mapping[str, Path], times: Mapping[str, Times], count: int
) -> list[Clip]:
    """Draw random clips of random videos, as an epoch does; the same ones every time."""
    rng = np.random.default_rng(0)
    clips = []
    for video_id in rng.choice(sorted(times), count):
        pts, keys = times[video_id]
        first = int(rng.integers(store.videos[video_id].frame_count - FRAMES + 1))
        dts = max((key for key in keys if key[0] <= pts[first]), default=keys[0])[1]
        clips.append(Clip(paths[video_id], video_id, first, pts[first], dts))
    return clips


def time_clips(store: FrameStore, clips: Sequence[Clip]) -> list[Timed]:
    """Read every clip with both methods: first all from the store, then all from their videos.

    No clip is kept in memory while others are timed; clips of the store are read a second time for
    the comparison.
    """
    from_store = [clocked(lambda clip=clip: stored_clip(store, clip))[1:] for clip in clips]
    timed = []
    for clip, (store_ms, store_cpu) in zip(clips, from_store, strict=True):
        stored = stored_clip(store, clip)
        height, width = stored.shape[2:]
        decoded, video_ms, video_cpu = clocked(
            lambda c=clip, h=height, w=width: decode_clip(c, h, w)
        )
        apart = np.inf
        if decoded.shape == stored.shape:
            apart = float((stored.float() - decoded.float()).abs().mean())
        timed.append(Timed(clip.path, store_ms, store_cpu, video_ms, video_cpu, apart))
    return timed


def stored_clip(store: FrameStore, clip: Clip) -> torch.Tensor:
    """Read uint8 [FRAMES, 3, height, width] from the store."""
    return store.clip(clip.video_id, range(clip.first, clip.first + FRAMES))


def clocked(work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, float, float]:
    """Return the result of ``work``, its elapsed milliseconds and its CPU milliseconds."""
    began = time.perf_counter(), time.process_time()
    clip = work()
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    return clip, 1000 * wall, 1000 * cpu


def summary(timed: Sequence[Timed]) -> dict[str, float]:
    """Return means over clips, and their ratios."""
    store_ms, video_ms = (
        float(np.mean([getattr(t, name) for t in timed])) for name in ("store_ms", "video_ms")
    )
    store_cpu, video_cpu = (
        float(np.mean([getattr(t, f"{name}_cpu_ms") for t in timed])) for name in ("store", "video")
    )
    return {
        "clips": len(timed),
        "videos": len({t.path for t in timed}),
        "store_ms": store_ms,
        "store_cpu_ms": store_cpu,
        "video_ms": video_ms,
        "video_cpu_ms": video_cpu,
        "wall_ratio": video_ms / store_ms,
        "ratio": video_cpu / store_cpu,
        "pixel_difference": max(t.pixel_difference for t in timed),
    }


def size_of(path: Path) -> str:
    """Return width x height of a video as text."""
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        return f"{context.width}x{context.height}"


def run(videos: tuple[Path, ...], count: int) -> dict[str, Any]:
    """Build a store in a temporary folder and compare both methods."""
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "list.txt"
        names.write_text("".join(f"{video.resolve()}\n" for video in videos))
        corpus = list_corpus(str(names))
        geometry = FrameGeometry()
        store = build_store(
            corpus, Path(folder) / "store", geometry, DecodeConfig(), NullProgress()
        )
        by_id = {
            file.video_id: corpus.root / file.path
            for file in corpus.files
            if file.video_id in store.videos
        }
        frames = sum(store.videos[video_id].frame_count for video_id in by_id)
        size = sum(path.stat().st_size for path in store.root.rglob("*.arrow"))
        times = comparable(store, by_id)
        clips = draw_clips(store, by_id, times, WARM_UP + count)
        rounds = [time_clips(store, part) for part in batched(clips, ROUND)]
        timed = [clip for part in rounds for clip in part][WARM_UP:]
    same = [t for t in timed if t.pixel_difference <= SAME_PICTURES]
    if not same:
        raise click.ClickException("PyAV decoded different pictures than the store for every clip")
    sizes = {path: size_of(path) for path in {t.path for t in same}}
    return {
        "frames": frames,
        "bytes_per_frame": size / frames,
        "uncounted": len(by_id) - len(times),
        "other_pictures": len(timed) - len(same),
        **summary(same),
        "by_size": {
            name: summary([t for t in same if sizes[t.path] == name])
            for name in sorted(set(sizes.values()), key=lambda text: int(text.split("x")[0]))
        },
    }


def describe(name: str, line: Mapping[str, float]) -> str:
    """Format one row of the table: CPU milliseconds per clip with both methods, and ratios."""
    return (
        f"{name:<10} {line['videos']:4.0f} videos {line['clips']:4.0f} clips  "
        f"store {line['store_cpu_ms']:6.2f} ms  video {line['video_cpu_ms']:7.1f} ms  "
        f"ratio {line['ratio']:4.0f}, elapsed {line['wall_ratio']:4.0f}"
    )


@click.command(help=__doc__)
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--clips",
    "count",
    default=100,
    show_default=True,
    type=click.IntRange(min=1),
    help="Clips to read.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(videos: tuple[Path, ...], count: int, as_json: bool) -> None:
    torch.set_num_threads(1)
    try:
        results = run(videos, count)
    except DistInitError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(results))
        return
    click.echo(f"{results['frames']} frames, {results['bytes_per_frame']:.0f} bytes per frame")
    for name, line in results["by_size"].items():
        click.echo(describe(name, line))
    click.echo(describe("all", results))
    verdict = "met" if results["ratio"] >= GOAL else "MISSED"
    click.echo(f"ratio {results['ratio']:.0f} in CPU time (goal {GOAL:.0f}: {verdict})")
    click.echo(
        f"left out: {results['uncounted']} videos with a different frame count in PyAV, "
        f"{results['other_pictures']} clips for which PyAV decoded different pictures"
    )
    click.echo(f"mean pixel difference of a clip: up to {results['pixel_difference']:.1f} of 255")


if __name__ == "__main__":
    main()
