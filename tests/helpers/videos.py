"""Small real videos, made with ffmpeg, and two ways of decoding one: the project's and PyAV's."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.video import DecodeSummary, View, open_video
from distinit.schemas.video import DecodeConfig

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
"""The ffmpeg of the wheel: another one in PATH changes nothing."""
H264 = ("-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p", "-bf", "2")
"""H.264 with B-frames."""


def make_video(
    path: Path,
    frames: int = 12,
    size: tuple[int, int] = (64, 48),
    rate: int = 10,
    seed: int = 0,
    args: tuple[str, ...] = H264,
) -> Path:
    """Encode ``frames`` synthetic frames of ``size`` (width, height) to ``path``; returns ``path``.

    ``args`` are ffmpeg's options for the output: the codec and its settings.
    """
    return encode_frames(path, synthetic_frames(frames, size, seed), rate, args)


def encode_frames(
    path: Path, frames_NHWC: NDArray[np.uint8], rate: int = 10, args: tuple[str, ...] = H264
) -> Path:
    """Encode RGB frames to ``path``; returns ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, height, width, _ = frames_NHWC.shape
    command = [FFMPEG, "-v", "error", "-nostdin", "-y"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command += ["-r", str(rate), "-i", "pipe:0", *args, f"file:{path}"]
    subprocess.run(command, input=frames_NHWC.tobytes(), check=True)
    return path


def drifting_frames(
    frames: int, seed: int, size: tuple[int, int] = (96, 64), speed: float = 1.0
) -> NDArray[np.uint8]:
    """uint8 [N, H, W, 3]: waves that drift over the whole picture; with speed 0 nothing moves."""
    width, height = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / height
    number = np.arange(frames)[:, None, None]
    time = speed * number * (1 + number / 60)  # faster and faster, so that nothing repeats
    gray = np.full((frames, height, width), 127.0)
    for _ in range(6):
        kx, ky = rng.uniform(2, 9, 2) * rng.choice([-1, 1], 2)
        gray += 20 * np.sin(kx * x + ky * y + rng.uniform(0.1, 0.5) * time + rng.uniform(0, 6.28))
    return np.repeat(gray[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)


def synthetic_frames(frames: int, size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """uint8 [N, H, W, 3]: a square moves by 3 pixels per frame over a smooth seeded texture."""
    width, height = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    phase = rng.uniform(0, 6.28, size=3)
    texture = np.stack([127 + 80 * np.sin(x / 9 + y / 13 + p) for p in phase], axis=-1)
    out = np.repeat(texture[None], frames, axis=0)
    side = max(4, height // 4)
    for i in range(frames):
        left = (3 * i + int(rng.integers(0, 3))) % max(1, width - side)
        top = (2 * i) % max(1, height - side)
        out[i, top : top + side, left : left + side] = (255, 255 - 9 * (i % 20), 10 * (i % 20))
    return out.clip(0, 255).astype(np.uint8)


def remake(source: Path, target: Path, *options: str, before: tuple[str, ...] = ()) -> Path:
    """Convert ``source`` with ffmpeg, with ``before`` as options in front of it."""
    argv = [FFMPEG, "-v", "error", "-nostdin", "-y", *before, "-i", f"file:{source}"]
    subprocess.run([*argv, *options, f"file:{target}"], check=True)
    return target


def decode(
    path: Path,
    views: dict[str, View] | None = None,
    config: DecodeConfig | None = None,
    block: int = 5,
) -> tuple[DecodeSummary, NDArray[np.int64], NDArray[np.uint64], dict[str, NDArray[np.uint8]]]:
    """Decode a whole video with the project: summary, pts_N, hash_N, frames of each view."""
    views = views or {"source": View.source()}
    config = config or DecodeConfig(deadline_seconds=60, stall_seconds=30)
    with open_video(path, views, config, block_frames=block) as stream:
        blocks = list(stream)
    assert stream.summary is not None
    assert [b.first_index for b in blocks] == list(range(0, stream.summary.frame_count, block))
    pts_N = np.concatenate([b.pts_N for b in blocks])
    hash_N = np.concatenate([b.hash_N for b in blocks])
    pixels = {name: np.concatenate([b.views[name] for b in blocks]) for name in views}
    return stream.summary, pts_N, hash_N, pixels


def decode_with_pyav(path: Path) -> tuple[list[int], Fraction, NDArray[np.uint8]]:
    """Decode a whole video with PyAV: pts, time base, RGB frames [N, H, W, 3] (not rotated)."""
    with av.open(f"file:{path}") as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        frames_NHWC = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
        return [frame.pts for frame in frames], stream.time_base, frames_NHWC
