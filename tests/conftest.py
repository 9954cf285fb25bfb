"""Shared fixtures: tiny real videos, made with the same ffmpeg that the project finds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import settings

# A machine that is busy with something else makes nothing wrong; and a change is judged by the same
# examples each time. To look for new ones: make test ARGS=--hypothesis-profile=search
settings.register_profile("distinit", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("distinit")
# One thread a process: the suite runs on two cores, and CPU results stay bitwise repeatable.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The wheel's binary, so that the suite says the same on a machine with another ffmpeg in PATH.
os.environ["DISTINIT_FFMPEG"] = imageio_ffmpeg.get_ffmpeg_exe()

# Processes that tests start (Ray workers, gloo workers) unpickle objects of the helpers.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
)

MakeVideo = Callable[..., Path]
H264 = ("-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p", "-bf", "2")


@pytest.fixture(scope="session")
def ffmpeg_exe() -> str:
    return os.environ["DISTINIT_FFMPEG"]


@pytest.fixture(autouse=True)
def _private_home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Derived indexes go to a folder of the test's own, never to the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("xdg-cache")))


@pytest.fixture(scope="session")
def make_video(ffmpeg_exe: str) -> MakeVideo:
    """``make_video(path, frames=12, size=(64, 48), rate=10, seed=0, args=(...))`` -> path.

    Every frame differs: a bright square moves over a seeded texture. The codec follows from
    ``args`` (default: H.264 with B-frames, crf 18).
    """

    def make(
        path: Path,
        frames: int = 12,
        size: tuple[int, int] = (64, 48),
        rate: int = 10,
        seed: int = 0,
        args: tuple[str, ...] = (
            "-c:v",
            "libx264",
            "-crf",
            "18",
            "-pix_fmt",
            "yuv420p",
            "-bf",
            "2",
        ),
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [ffmpeg_exe, "-v", "error", "-nostdin", "-y"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}"]
        command += ["-r", str(rate), "-i", "pipe:0", *args, f"file:{path}"]
        pixels = synthetic_frames(frames, size, seed)
        subprocess.run(command, input=pixels.tobytes(), check=True)
        return path

    return make


def synthetic_frames(frames: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """uint8 [N, H, W, 3]: a square that moves by 3 pixels a frame over a smooth texture."""
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


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """The one Ray that all tests share; mark them ``@pytest.mark.ray``."""
    import ray

    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    # "local": another Ray may run on this machine, and its address would be found.
    ray.init(address="local", num_cpus=4, **quiet)
    yield
    ray.shutdown()
