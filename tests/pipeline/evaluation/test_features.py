"""Features of videos of known brightness: the means over their clips, computed by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from helpers.frame_stores import GREY_VIDEOS, grey_store
from helpers.progress import RecordingProgress
from torch import Tensor, nn

from distinit.pipeline.evaluation.features import FeatureReader
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.students.base import as_backbone
from distinit.pipeline.students.heads import Student
from distinit.schemas.errors import ComputeError
from distinit.schemas.training import ClipConfig

# Levels of 0..255 become 0..1, since the mean is 0 and the standard deviation 1.
CLIP = ClipConfig(frames=4, crop=16, mean=(0.0,) * 3, std=(1.0,) * 3)


class Brightness(nn.Module):
    """Brightness of the first and of the last frame of a clip."""

    feature_dim = 2

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        assert clip_BCTHW.shape[1:] == (3, 4, 16, 16)
        return clip_BCTHW.mean(dim=(1, 3, 4))[:, [0, -1]]


class NotFinite(nn.Module):
    feature_dim = 1

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        return clip_BCTHW.mean(dim=(1, 2, 3, 4))[:, None] * torch.nan


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return grey_store(tmp_path_factory.mktemp("features") / "store")


def reader(
    store: FrameStore, protocol: str, module: nn.Module | None = None, batch_size: int = 2
) -> FeatureReader:
    student = Student(as_backbone(module or Brightness()), {"labels": 2}).eval()
    return FeatureReader(student, store, CLIP, protocol, batch_size, torch.device("cpu"))


@pytest.mark.parametrize(
    ("protocol", "turns", "counts"),
    [
        # Clips start at 0, 4 and 8: their first frames are 20, 20, 230, their last ones too.
        ("vmz-3", ((20 + 20 + 230) / 3, (20 + 20 + 230) / 3), [3, 3, 3]),
        # At 0, 3 and 6: first 20, 20, 20; last (3, 6, 9) 20, 20, 230.
        ("dense-s3", (20, (20 + 20 + 230) / 3), [3, 1, 3]),
        ("vmz-1", (20, 20), [1, 1, 1]),
    ],
)
def test_a_feature_is_the_mean_over_the_clips(
    store: FrameStore, protocol: str, turns: tuple[float, float], counts: Sequence[int]
) -> None:
    network = reader(store, protocol)
    progress = RecordingProgress()
    features_ND = network.features(tuple(GREY_VIDEOS), progress)
    assert features_ND.dtype == torch.float32
    expected_ND = torch.tensor([(230, 230), (20, 20), turns]) / 255
    assert features_ND.shape == (3, 2)
    assert torch.allclose(features_ND, expected_ND, atol=1e-5)
    assert network.clip_counts(tuple(GREY_VIDEOS)).tolist() == counts
    assert progress.advanced == 3


def test_neither_batches_nor_the_order_of_videos_change_a_feature(store: FrameStore) -> None:
    names = tuple(GREY_VIDEOS)
    progress = RecordingProgress()
    one_ND = reader(store, "dense-s1", batch_size=1).features(names, progress)
    many_ND = reader(store, "dense-s1", batch_size=64).features(names[::-1], progress)
    assert torch.equal(one_ND, many_ND.flip(0))


def test_a_feature_that_is_not_finite_is_an_error(store: FrameStore) -> None:
    with pytest.raises(ComputeError, match="not a finite number"):
        reader(store, "vmz-1", NotFinite()).features(["dark"], RecordingProgress())
