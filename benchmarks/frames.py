"""Clips a second from the frame store, against decoding the same clips from the videos (PyAV).

    python benchmarks/frames.py VIDEO ... [--clips 100] [--json]

Both deliver uint8 RGB at the store's size, in one thread of one process, and take turns. PyAV opens
the file, seeks to the keyframe before the clip and decodes up to its last frame: a training epoch
visits videos in random order, so no file is open already. The bar: 50 times as many clips, by CPU
time, which a busy machine disturbs less than elapsed time.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

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

BAR = 50.0
FRAMES = 8
WARM_UP = 10


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames ``first`` .. ``first + FRAMES - 1`` of a video."""

    path: Path
    video_id: str
    first: int
    first_pts: int
    seek_dts: int
    """Of the last keyframe that is shown no later: a seek goes by decoding time."""


def frame_times(path: Path) -> tuple[list[int], list[tuple[int, int]]]:
    """Times of all frames, in display order, and (pts, dts) of keyframes, in the stream's unit."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
    keys = [(p.pts, p.dts) for p in packets if p.is_keyframe]
    return sorted(p.pts for p in packets), keys


def decode_clip(clip: Clip, height: int, width: int) -> torch.Tensor:
    """uint8 [FRAMES, 3, height, width] straight from the video."""
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
    return torch.stack(frames)


def draw_clips(store: FrameStore, paths: dict[str, Path], count: int) -> list[Clip]:
    """Random clips, from the same starts every time."""
    rng = np.random.default_rng(0)
    times = {video_id: frame_times(path) for video_id, path in paths.items()}
    clips = []
    for video_id in rng.choice(sorted(paths), count):
        frames = store.videos[video_id].frame_count
        pts, keys = times[video_id]
        if len(pts) != frames or frames < FRAMES:
            raise click.ClickException(f"{paths[video_id]}: PyAV and the store count otherwise")
        first = int(rng.integers(frames - FRAMES + 1))
        dts = max(key for key in keys if key[0] <= pts[first])[1]
        clips.append(Clip(paths[video_id], video_id, first, pts[first], dts))
    return clips


def measure(store: FrameStore, clips: list[Clip]) -> dict[str, float]:
    """Milliseconds a clip of both ways, their ratios, and how far their pixels are apart."""
    seconds_N4, apart = [], []
    for clip in clips:
        marks = [(time.perf_counter(), time.process_time())]
        from_store = store.clip(clip.video_id, range(clip.first, clip.first + FRAMES))
        marks.append((time.perf_counter(), time.process_time()))
        from_video = decode_clip(clip, *from_store.shape[2:])
        marks.append((time.perf_counter(), time.process_time()))
        seconds_N4.append(np.diff(marks, axis=0).ravel())
        apart.append(float((from_store.float() - from_video.float()).abs().mean()))
    store_wall, store_cpu, video_wall, video_cpu = 1000 * np.mean(seconds_N4, axis=0)
    return {
        "store_ms": float(store_wall),
        "store_cpu_ms": float(store_cpu),
        "video_ms": float(video_wall),
        "video_cpu_ms": float(video_cpu),
        "wall_ratio": float(video_wall / store_wall),
        "ratio": float(video_cpu / store_cpu),
        "pixel_difference": max(apart),
    }


def run(videos: tuple[Path, ...], count: int) -> dict[str, float]:
    """Build a store in a temporary folder and measure it."""
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "list.txt"
        names.write_text("".join(f"{video.resolve()}\n" for video in videos))
        corpus = list_corpus(str(names))
        geometry = FrameGeometry()
        store = build_store(
            corpus, Path(folder) / "store", geometry, DecodeConfig(), NullProgress()
        )
        frames = sum(store.videos[file.video_id].frame_count for file in corpus.files)
        size = sum(path.stat().st_size for path in store.root.rglob("*.arrow"))
        by_id = {file.video_id: corpus.root / file.path for file in corpus.files}
        clips = draw_clips(store, by_id, WARM_UP + count)
        measure(store, clips[:WARM_UP])
        figures = measure(store, clips[WARM_UP:])
        return {"frames": frames, "bytes_per_frame": size / frames, "clips": count, **figures}


@click.command(help=__doc__)
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--clips", "count", default=100, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(videos: tuple[Path, ...], count: int, as_json: bool) -> None:
    torch.set_num_threads(1)
    try:
        figures = run(videos, count)
    except DistInitError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(figures))
        return
    click.echo(f"{figures['frames']} frames, {figures['bytes_per_frame']:.0f} bytes a frame")
    for name in ("store", "video"):
        wall, cpu = figures[f"{name}_ms"], figures[f"{name}_cpu_ms"]
        click.echo(
            f"{name}: {1000 / cpu:.0f} clips/s of one core ({cpu:.2f} ms of CPU a clip, "
            f"{wall:.2f} ms elapsed)"
        )
    verdict = "met" if figures["ratio"] >= BAR else "MISSED"
    click.echo(
        f"ratio {figures['ratio']:.0f} (bar {BAR:.0f}: {verdict}), "
        f"{figures['wall_ratio']:.0f} by elapsed time"
    )
    click.echo(
        f"largest mean difference of pixels of a clip: {figures['pixel_difference']:.1f} of 255"
    )


if __name__ == "__main__":
    main()
