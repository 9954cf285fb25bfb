"""A student that outputs brightness, on videos of known brightness: metrics computed by hand."""

from __future__ import annotations

import pytest
import torch
from helpers.frame_stores import GREY_VIDEOS, grey_store
from torch import Tensor, nn

from distinit.pipeline.datasets.scored import ScoredVideo
from distinit.pipeline.evaluation.score import score_student
from distinit.pipeline.evaluation.scorer import Scoring
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import NullProgress
from distinit.pipeline.students.base import as_backbone
from distinit.pipeline.students.heads import Student
from distinit.schemas.errors import DatasetError
from distinit.schemas.run import EvaluationResult
from distinit.schemas.training import ClipConfig

CLIP = ClipConfig(frames=4, crop=16, mean=(0.5,) * 3, std=(0.5,) * 3)


class Brightness(nn.Module):
    """The mean brightness of the clip, from -1 to 1."""

    feature_dim = 1

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        assert clip_BCTHW.shape[1:] == (3, 4, 16, 16)
        return clip_BCTHW.mean(dim=(1, 2, 3, 4))[:, None]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return grey_store(tmp_path_factory.mktemp("scored") / "store")


def score(
    store: FrameStore, labels: dict[str, int | None], protocol: str, batch_size: int = 3
) -> EvaluationResult:
    student = Student(as_backbone(Brightness()), {"labels": 2})
    with torch.no_grad():
        head = student.heads["labels"]
        head.get_parameter("weight").copy_(torch.tensor([[-1.0], [1.0]]))
    videos = [
        ScoredVideo(name, label or 0, None if name not in GREY_VIDEOS else name)
        for name, label in labels.items()
    ]
    return score_student(
        student,
        store,
        videos,
        Scoring(CLIP, protocol, batch_size, loader_threads=1),
        classes=2,
        progress=NullProgress(),
    )


def test_dense_clips_are_all_scored(store: FrameStore) -> None:
    # The clips of "turns" at 0, 4 and 8 are dark, dark, bright.
    result = score(store, {"bright": 1, "dark": 0, "turns": 0}, "dense-s4")
    assert (result.videos, result.clips) == (3, 7)
    assert result.per_clip == pytest.approx(100 * 6 / 7)
    assert (result.top1, result.top5) == (100.0, 100.0)
    assert result.confusion == ((2, 0), (0, 1))
    assert (result.class_top1, result.average, result.precision) == ((100, 100), "softmax", "fp32")


def test_vmz_counts_a_clip_as_often_as_its_start_repeats(store: FrameStore) -> None:
    result = score(store, {"dark": 1, "turns": 1}, "vmz-3")
    assert result.clips == 6
    assert result.per_clip == pytest.approx(100 * 1 / 6)
    assert result.top1 == 0.0
    assert result.confusion == ((0, 0), (2, 0))


def test_a_failed_video_counts_as_wrong(store: FrameStore) -> None:
    result = score(store, {"bright": 1, "torn": 1}, "vmz-5")
    assert (result.videos, result.clips) == (2, 10)
    assert (result.per_clip, result.top1, result.top5) == (50.0, 50.0, 50.0)
    assert result.failed_videos == ("torn",)
    assert result.class_top1 == (None, 50.0)


def test_the_result_does_not_depend_on_the_batch_size(store: FrameStore) -> None:
    labels: dict[str, int | None] = {"bright": 1, "dark": 1, "turns": 0}
    assert score(store, labels, "dense-s1", 1) == score(store, labels, "dense-s1", 64)


def test_a_test_set_without_a_decodable_video_is_an_error(store: FrameStore) -> None:
    with pytest.raises(DatasetError, match="none of the videos to score could be decoded"):
        score(store, {"torn": 0, "also torn": 1}, "vmz-1")
