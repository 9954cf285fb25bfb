"""A learnable toy task, and small caches with their frame stores."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distinit.pipeline.cache.plan import PlannedVideo
from distinit.pipeline.cache.task import open_task
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.pipeline.progress import NullProgress
from distinit.pipeline.students.base import as_backbone
from distinit.pipeline.students.heads import Student
from distinit.pipeline.training.run_dir import RunDirectory, open_run
from distinit.pipeline.training.task import Batch, TrainingSettings
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.manifest import VideoOutcome
from distinit.schemas.teacher import PreprocessSpec, TeacherIdentity, TeacherRecord
from distinit.schemas.training import ClipConfig, OptimizerConfig, RuntimeConfig, StudentConfig
from distinit.schemas.video import SamplingConfig


class Net(nn.Module):
    """One convolution, batch norm if wanted, and a mean: differentiable in a millisecond."""

    feature_dim = 4

    def __init__(self, norm: bool, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm3d(4) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, clip: Tensor) -> Tensor:
        return self.dropout(torch.tanh(self.norm(self.conv(clip)))).mean(dim=(2, 3, 4))


@dataclass
class ToyTask:
    """Samples 0 .. n-1: noise pixels that depend on the sample alone, three classes."""

    count: int = 16
    norm: bool = True
    dropout: float = 0.0
    dtype: torch.dtype = torch.float32
    seed: int = 0

    def build(self) -> Student:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return Student(as_backbone(Net(self.norm, self.dropout)), {"toy": 3}).to(self.dtype)

    def samples(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng(epoch).permutation(self.count)

    def load(self, epoch: int, samples_B: NDArray[np.int64]) -> Batch:
        pixels = [
            np.random.default_rng(s).integers(0, 256, (2, 3, 4, 4), np.uint8) for s in samples_B
        ]
        return Batch(
            pixels=torch.from_numpy(np.stack(pixels)),
            flip_B=torch.from_numpy(samples_B % 2 == 0),
            targets={"label_B": torch.from_numpy(samples_B % 3)},
        )

    def loss(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logits = outputs["toy"]
        loss = nn.functional.cross_entropy(logits, targets["label_B"])
        return loss, {"accuracy": (logits.argmax(1) == targets["label_B"]).double().mean()}

    def check_progress(self, lines: Sequence[Mapping[str, float]]) -> None:
        """Every sample has a label."""


def make_settings(
    optimizer: Mapping[str, Any] | None = None, runtime: Mapping[str, Any] | None = None
) -> TrainingSettings:
    return TrainingSettings(
        clip=ClipConfig(frames=2, crop=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        optimizer=OptimizerConfig.model_validate(
            {"learning_rate": 0.1, "epochs": 3, "clips_per_epoch": None, **(optimizer or {})}
        ),
        runtime=RuntimeConfig.model_validate({"batch_size": 4, "device": "cpu", **(runtime or {})}),
    )


def make_run(root: Path, **extra: str) -> RunDirectory:
    return open_run(root, "distill", StudentConfig(), extra)


class Recorder(NullProgress):
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.started: list[tuple[float | None, str, float]] = []
        self.advanced = 0.0

    def start(self, description: str, total: float | None, unit: str, done: float = 0) -> None:
        self.started.append((total, unit, done))

    def advance(self, amount: float = 1, **figures: Any) -> None:
        self.advanced += amount

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture
def toys() -> ModuleType:
    """The names above: test modules cannot import a conftest by name."""
    return sys.modules[__name__]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return make_run(tmp_path / "run")


CurveOf = Callable[[RunDirectory], list[tuple[int, float, float]]]


@pytest.fixture
def curve_of() -> CurveOf:
    """(step, loss, learning rate) of every metric line: what resuming must not change."""
    return lambda run: [(m["step"], m["loss"], m["learning_rate"]) for m in run.read_metrics()]


FRAMES = {"a": 12, "b": 9, "c": 20, "short": 3, "d": 8, "bad": 6}
CLASSES = {"alpha": 7, "beta": 5, "gamma": 7, "alpha-flip": 7}
SPACES = {"gamma": "test-alpha", "alpha-flip": "test-alpha"}


def digest_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def video_id_of(name: str) -> str:
    return digest_of(name)[:16]


def logits_of(video_id: str, teacher: str, frame: int) -> NDArray[np.float32]:
    """What the made-up teacher says, as float16 stores it; frames differ in how sure it is."""
    key = hashlib.sha256(f"{video_id}/{teacher}/{frame}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(key[:8], "little"))
    logits = rng.uniform(0.2, 6) * rng.standard_normal(CLASSES[teacher])
    return logits.astype(np.float16).astype(np.float32)


def teacher_record(name: str, target: str) -> TeacherRecord:
    spec = PreprocessSpec(
        resize_mode="short_edge",
        resize_size=8,
        crop_size=8,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        flip=name.endswith("-flip"),
    )
    identity = TeacherIdentity.model_validate(
        {
            "architecture": "test/tiny",
            "weights_sha256": hashlib.sha256(name.removesuffix("-flip").encode()).hexdigest(),
            "preprocessing": spec,
            "target": target,
            "classes": CLASSES[name],
            "label_space": SPACES.get(name, f"test-{name}"),
            "label_names": (),
        }
    )
    return TeacherRecord(
        id=name,
        fingerprint=identity.fingerprint,
        identity=identity,
        encoding="float16",
        batch_size=4,
        software={},
    )


def write_cache(
    root: Path, teachers: tuple[str, ...], every: int = 1, target: str = "logits"
) -> None:
    """A cache of FRAMES with one row for every ``every``-th frame; video ``bad`` has failed."""
    sampling = SamplingConfig(mode="stride", stride=every) if every > 1 else SamplingConfig()
    planned = [
        PlannedVideo(video_id_of(n), f"{n}.mp4", digest_of(n), 100, 1, f, -(-f // every), 25.0)
        for n, f in FRAMES.items()
    ]
    records = {name: teacher_record(name, target) for name in teachers}
    names = {video_id_of(name): name for name in FRAMES}
    with CacheWriter.create_or_open(
        root, videos=planned, sampling=sampling, teachers=records, unit_rows=64
    ) as writer:
        for spec in writer.pending_tasks():
            task = open_task(spec)
            for video in spec.videos:
                name = names[video.video_id]
                index_N = np.arange(0, FRAMES[name], every)
                hash_N = index_N.astype(np.uint64) * np.uint64(2**40)
                logits = {
                    t: np.stack([logits_of(video.video_id, t, i) for i in index_N.tolist()])
                    for t in teachers
                }
                task.add(video, index_N, index_N * 512, "1/12800", hash_N, logits)
                if name == "bad":
                    task.fail_video(outcome(video.video_id, 0, "made to fail"))
                else:
                    task.finish_video(outcome(video.video_id, FRAMES[name]))
            task.commit()
        writer.finalise()


def outcome(video_id: str, frames: int, error: str | None = None) -> VideoOutcome:
    return VideoOutcome(
        video_id=video_id,
        status="failed" if error else "ok",
        frame_count=frames,
        width=32,
        height=24,
        duration_seconds=frames / 25,
        error=error,
    )


def write_frames(root: Path, frames: Mapping[str, int]) -> None:
    """A store of moving ramps, 24 x 32 pixels; ids differ from the cache's, digests agree."""
    writer = FrameStoreWriter(root, FrameGeometry(), "0" * 64)
    with writer.open_unit(0) as unit:
        for number, (name, count) in enumerate(frames.items()):
            ramp = np.add.outer(3 * np.arange(24), 4 * np.arange(32))
            levels = ramp[None] + 9 * np.arange(count)[:, None, None] + 20 * number
            pixels = np.repeat(levels[..., None] % 256, 3, axis=-1).astype(np.uint8)
            unit.append(f"store-{name}", digest_of(name), 0, pixels, 25.0)
        unit.commit()
    writer.finalise([0])


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``one``, ``two``, ``sparse``, ``features``: caches; ``frames``: their frame store."""
    root = tmp_path_factory.mktemp("stored")
    write_cache(root / "one", ("alpha",))
    write_cache(root / "two", ("alpha", "beta"))
    write_cache(root / "sparse", ("alpha",), every=9)
    write_cache(root / "features", ("alpha",), target="features")
    write_frames(root / "frames", {n: f for n, f in FRAMES.items() if n != "bad"})
    return root
