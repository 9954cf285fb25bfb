"""The scores are the same for any number of workers, also if workers die."""

from __future__ import annotations

import hashlib
import threading
from copy import deepcopy
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers.frame_stores import smooth_frames
from helpers.students import TINY, Mortal

from distinit.pipeline.datasets.scored import ScoredVideo
from distinit.pipeline.evaluation.epochs import EpochEvaluator, epoch_metrics
from distinit.pipeline.evaluation.score import score_student
from distinit.pipeline.evaluation.scorer import Scoring, plan_tasks
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.pipeline.progress import NullProgress
from distinit.pipeline.students.base import as_backbone
from distinit.pipeline.students.heads import Student, new_student
from distinit.schemas.compute import ComputeConfig
from distinit.schemas.errors import ComputeError, ConfigError
from distinit.schemas.evaluation import ScoresRecord
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.run import EvaluationResult
from distinit.schemas.training import ClipConfig

CLASSES = 4
CLIP = ClipConfig(frames=4, crop=16)
SCORING = Scoring(CLIP, "dense-s1", 2)
RECORD = ScoresRecord(
    protocol="dense-s1",
    classes=CLASSES,
    precision="fp32",
    clip_frames=4,
    crop=16,
    student="1" * 64,
    dataset="2" * 64,
    pixels=None,
    versions={},
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    """Seven videos of 3 to 27 frames; frame i of video v has the brightness 4 * (4 * v + i)."""
    root = tmp_path_factory.mktemp("scored") / "store"
    writer = FrameStoreWriter(root, FrameGeometry(short_edge=16), "0" * 64)
    with writer.open_unit(0) as unit:
        for number in range(7):
            frames = smooth_frames(4 * number + 3, first=8 * number, height=16, width=24)
            digest = hashlib.sha256(bytes([number])).hexdigest()
            unit.append(f"v{number}", digest, 0, frames, 10.0)
        unit.commit()
    writer.finalise([0])
    return FrameStore.open(root)


VIDEOS = [
    *(ScoredVideo(f"{number}.avi", number % CLASSES, f"v{number}") for number in range(7)),
    ScoredVideo("torn.avi", 1, None),
]


def score(student: Student, store: FrameStore, path: Path, compute: ComputeConfig) -> object:
    return score_student(
        student,
        store,
        VIDEOS,
        SCORING,
        classes=CLASSES,
        compute=compute,
        scores=(path, RECORD),
        progress=NullProgress(),
    )


def test_every_video_is_in_exactly_one_task(store: FrameStore) -> None:
    tasks = plan_tasks(store, VIDEOS, SCORING)
    assert [video for task in tasks for video in task.videos] == [(n, f"v{n}") for n in range(7)]
    # Clips: 1, 4, 8, 12, 16, 20, 24; a task ends with the video that makes it 16 batches.
    assert [task.clips for task in tasks] == [41, 44]
    assert [task.number for task in tasks] == [0, 1]


@pytest.mark.ray
def test_scores_and_counts_are_the_same_at_one_two_and_three_workers_and_after_a_death(
    store: FrameStore, tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distinit.pipeline.evaluation.scorer._BATCHES_PER_TASK", 8)
    assert len(plan_tasks(store, VIDEOS, SCORING)) == 4
    graves = tmp_path / "graves"
    expected = score(mortal(graves, 0), store, tmp_path / "0.parquet", ComputeConfig())
    assert isinstance(expected, EvaluationResult)
    assert (expected.videos, expected.clips) == (8, 86)
    table = pq.read_table(tmp_path / "0.parquet")
    logits = np.array(table["logits"].to_pylist()[:-1])
    assert logits.shape == (85, CLASSES)
    for workers, deaths in ((1, 0), (2, 1), (3, 0)):
        graves = tmp_path / f"graves {workers}"
        path = tmp_path / f"{workers}.parquet"
        student = mortal(graves, deaths)
        assert score(student, store, path, ComputeConfig(workers=workers)) == expected
        assert len(list(graves.iterdir())) == deaths
        other = pq.read_table(path)
        assert other.drop_columns("logits") == table.drop_columns("logits")
        found = np.array(other["logits"].to_pylist()[:-1])
        assert np.abs(found - logits).max() <= 1e-6


@pytest.mark.ray
def test_an_evaluation_whose_workers_die_is_an_error_and_leaves_no_file(
    store: FrameStore, tmp_path: Path, ray_session: None
) -> None:
    student = mortal(tmp_path / "graves", 9)
    compute = ComputeConfig(workers=1, max_attempts=1)
    with pytest.raises(ComputeError, match="1 worker died while scoring the same videos"):
        score(student, store, tmp_path / "x", compute)
    assert [path.name for path in tmp_path.iterdir()] == ["graves"]


def mortal(graves: Path, lives: int) -> Student:
    """A student whose weights are always the same, and which kills ``lives`` workers."""
    graves.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Student(as_backbone(Mortal(graves, lives)), {"labels": CLASSES})


def test_a_gpu_needs_workers_that_reserve_it(store: FrameStore) -> None:
    with pytest.raises(ConfigError, match="device cuda needs Ray workers that reserve a GPU"):
        score_student(
            new_student(TINY, {"labels": CLASSES}, seed=3),
            store,
            VIDEOS,
            SCORING,
            classes=CLASSES,
            device="cuda",
            compute=ComputeConfig(workers=2),
            progress=NullProgress(),
        )


class Threads:
    """A collective of threads: adds the tensors that ``world_size`` threads pass to it."""

    def __init__(self, rank: int, world_size: int, shared: list[torch.Tensor]) -> None:
        self.rank, self.world_size, self._shared = rank, world_size, shared

    barrier = threading.Barrier(3)

    def sum_(self, tensor: torch.Tensor) -> None:
        self._shared.append(tensor.clone())
        self.barrier.wait(60)
        tensor.copy_(sum(self._shared, torch.zeros_like(tensor)))


def test_workers_of_a_training_evaluate_together(
    store: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distinit.pipeline.evaluation.scorer._BATCHES_PER_TASK", 8)
    student = new_student(TINY, {"labels": CLASSES}, seed=3)
    evaluator = EpochEvaluator(1, "test", store, tuple(VIDEOS), SCORING, CLASSES)
    shared: list[torch.Tensor] = []
    found: dict[int, dict[str, int | float]] = {}

    def work(rank: int) -> None:
        collective = Threads(rank, 3, shared)
        found[rank] = evaluator.evaluate(deepcopy(student), collective, torch.device("cpu"))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = score_student(student, store, VIDEOS, SCORING, classes=CLASSES, progress=NullProgress())
    assert found == dict.fromkeys(range(3), epoch_metrics(whole))
    assert epoch_metrics(whole)["clips"] == 86
    assert [bool(tensor.any()) for tensor in shared] == [True] * 3
