"""A network as a teacher: outputs do not depend on the batch; inputs and outputs are checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from distinit.pipeline.teachers.base import NetworkTeacher
from distinit.pipeline.teachers.network import Network
from distinit.pipeline.teachers.torchvision_models import load_torchvision
from distinit.pipeline.video.views import View
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import PreprocessSpec, TeacherIdentity, TeacherRequest


@pytest.fixture
def teacher(squeezenet_file: Path) -> NetworkTeacher:
    request = TeacherRequest(name="squeezenet1_1", weights=str(squeezenet_file))
    return NetworkTeacher("seven", load_torchvision(request), device="cpu")


def made_teacher(module: nn.Module, classes: int = 3) -> NetworkTeacher:
    spec = PreprocessSpec(
        resize_mode="squash", resize_size=8, crop_size=8, mean=(0, 0, 0), std=(1, 1, 1)
    )
    identity = TeacherIdentity(
        architecture="made",
        weights_sha256="0" * 64,
        preprocessing=spec,
        classes=classes,
        label_space="made",
        label_names=(),
    )
    return NetworkTeacher("made", Network(module, identity, "made"), device="cpu")


class ChannelMeans(nn.Module):
    """Logits: the three channel means, or NaN where a mean is below ``nan_below``."""

    def __init__(self, nan_below: float = -1.0) -> None:
        super().__init__()
        self.nan_below = nan_below

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        means_BC = x_BCHW.mean(dim=(2, 3))
        return torch.where(means_BC < self.nan_below, torch.nan, means_BC)


def test_logits_equal_those_of_torchvision(
    teacher: NetworkTeacher, squeezenet_state: dict[str, torch.Tensor], noise_frames: np.ndarray
) -> None:
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    network = squeezenet1_1(num_classes=7).eval()
    network.load_state_dict(squeezenet_state)
    preset = SqueezeNet1_1_Weights.DEFAULT.transforms()
    pixels = torch.from_numpy(noise_frames).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network(torch.stack([preset(frame) for frame in pixels])).numpy()
    logits_NC = teacher.forward(noise_frames)
    assert logits_NC.dtype == np.float32
    np.testing.assert_allclose(logits_NC, expected, rtol=0, atol=1e-5)


def test_logits_are_bitwise_equal_for_any_batch_and_thread_count(
    teacher: NetworkTeacher, noise_frames: np.ndarray
) -> None:
    before = torch.get_num_threads()
    whole = teacher.forward(noise_frames)
    alone = [teacher.forward(noise_frames[i : i + 1]) for i in range(len(noise_frames))]
    np.testing.assert_array_equal(whole, np.concatenate(alone))
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            np.testing.assert_array_equal(whole, teacher.forward(noise_frames))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_features_are_the_input_of_the_classifier(
    squeezenet_file: Path, noise_frames: np.ndarray
) -> None:
    request = TeacherRequest(name="squeezenet1_1", weights=str(squeezenet_file), target="features")
    teacher = NetworkTeacher("features", load_torchvision(request), device="cpu")
    features_NC = teacher.forward(noise_frames[:2])
    assert features_NC.shape == (2, 512)
    assert features_NC.min() >= 0  # pooled after a ReLU


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_gives_similar_logits_in_float32(
    precision: str, squeezenet_file: Path, teacher: NetworkTeacher, noise_frames: np.ndarray
) -> None:
    request = TeacherRequest(name="squeezenet1_1", weights=str(squeezenet_file))
    network = load_torchvision(request)
    reduced = NetworkTeacher("r", network, device="cpu", precision=precision)  # type: ignore[arg-type]
    exact_NC, reduced_NC = teacher.forward(noise_frames[:1]), reduced.forward(noise_frames[:1])
    assert reduced_NC.dtype == np.float32
    assert not np.array_equal(reduced_NC, exact_NC)
    np.testing.assert_allclose(reduced_NC, exact_NC, atol=0.05 * np.abs(exact_NC).max())


def test_the_network_is_frozen(teacher: NetworkTeacher) -> None:
    assert not any(p.requires_grad for p in teacher._module.parameters())
    assert not teacher._module.training
    assert teacher.view == View.source()


def test_read_only_and_empty_blocks_are_accepted(
    teacher: NetworkTeacher, noise_frames: np.ndarray
) -> None:
    read_only = noise_frames[:1].copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(teacher.forward(read_only), teacher.forward(noise_frames[:1]))
    assert teacher.forward(noise_frames[:0]).shape == (0, 7)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 3, 8, 8), np.uint8), ((8, 8, 3), np.uint8), ((1, 8, 8, 3), np.float32)],
)
def test_input_that_is_not_a_frame_block_is_refused(shape: tuple[int, ...], dtype: type) -> None:
    with pytest.raises(TeacherError, match=r"uint8 \[N, height, width, 3\]"):
        made_teacher(ChannelMeans()).forward(np.zeros(shape, dtype=dtype))


def test_nan_logits_are_an_error() -> None:
    teacher = made_teacher(ChannelMeans(nan_below=0.2))
    frames_NHWC = np.full((3, 8, 8, 3), 255, dtype=np.uint8)
    np.testing.assert_array_equal(teacher.forward(frames_NHWC), np.ones((3, 3), np.float32))
    frames_NHWC[1] = 0
    with pytest.raises(TeacherError, match="1 of 3 frames with NaN"):
        teacher.forward(frames_NHWC)


def test_a_network_that_computes_nan_for_the_probe_picture_is_refused_at_once() -> None:
    with pytest.raises(TeacherError, match="computes NaN or infinity for an ordinary picture"):
        made_teacher(ChannelMeans(nan_below=2.0))


def test_a_network_with_another_number_of_classes_is_refused() -> None:
    with pytest.raises(TeacherError, match=r"shape \(1, 3\) for one frame"):
        made_teacher(ChannelMeans(), classes=4)
