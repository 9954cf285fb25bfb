"""Students by name: sizes, parameter counts, input channels, refusals."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

from distinit.pipeline.students.heads import new_student
from distinit.pipeline.students.registry import build_student, check_clip
from distinit.pipeline.students.vmz import middle_planes, vmz_network
from distinit.schemas.errors import ConfigError
from distinit.schemas.training import ClipConfig, StudentConfig


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("r2plus1d_18", 31_505_325),
        ("r3d_18", 33_371_472),
        ("vmz_r2plus1d_18", 33_370_839),
        ("vmz_r3d_18", 33_371_472),
    ],
)
def test_parameter_counts_with_400_classes(name: str, expected: int) -> None:
    student = new_student(StudentConfig(name=name), {"kinetics": 400}, seed=0)
    assert parameters(student) == expected


def test_vmz_middle_planes_per_convolution() -> None:
    pairs = [(64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    assert [middle_planes(*pair) for pair in pairs] == [144, 230, 288, 460, 576, 921, 1152]


@pytest.mark.parametrize("name", ["vmz_r2plus1d_18", "vmz_r3d_18"])
def test_vmz_batch_norm_constants(name: str) -> None:
    norms = [m for m in vmz_network(name, 1).modules() if isinstance(m, nn.BatchNorm3d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.1)}


def test_vmz_34_has_32_block_convolutions() -> None:
    network = vmz_network("vmz_r3d_34", 1)
    kernels = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
    assert sum(m.kernel_size == (3, 3, 3) for m in kernels) == 32


@pytest.mark.parametrize(
    ("name", "feature_dim", "clip"),
    [
        ("tiny_r2plus1d_10", 128, (8, 16)),
        ("tiny_r2plus1d_10", 128, (5, 33)),
        ("r3d_18", 512, (2, 16)),
        ("mc3_18", 512, (2, 16)),
        ("r2plus1d_18", 512, (2, 16)),
        ("vmz_r2plus1d_34", 512, (2, 16)),
        ("s3d", 1024, (8, 32)),
        ("swin3d_t", 768, (2, 32)),
    ],
)
@pytest.mark.parametrize("in_channels", [2, 3])
def test_every_student_maps_clips_to_features(
    name: str, feature_dim: int, clip: tuple[int, int], in_channels: int
) -> None:
    backbone = build_student(StudentConfig(name=name, in_channels=in_channels))  # type: ignore[arg-type]
    assert isinstance(backbone, nn.Module)
    backbone.eval()
    frames, crop = clip
    with torch.inference_mode():
        features = backbone(torch.randn(2, in_channels, frames, crop, crop))
    assert features.shape == (2, feature_dim)
    assert backbone.feature_dim == feature_dim
    assert torch.isfinite(features).all()
    assert not torch.equal(features[0], features[1])


@pytest.mark.parametrize("frames", [8, 16, 32])
@pytest.mark.parametrize("name", ["tiny_r2plus1d_10", "r2plus1d_18", "vmz_r3d_18", "s3d"])
def test_clips_of_8_16_and_32_frames(name: str, frames: int) -> None:
    check_clip(StudentConfig(name=name), ClipConfig(frames=frames))
    student = new_student(StudentConfig(name=name), {"a": 3}, seed=0).eval()
    crop = 32 if name == "s3d" else 16
    with torch.inference_mode():
        outputs = student(torch.randn(1, 3, frames, crop, crop))
    assert outputs["a"].shape == (1, 3)
    assert torch.isfinite(outputs["a"]).all()


def test_mvit_reads_its_one_clip_size() -> None:
    student = new_student(StudentConfig(name="mvit_v2_s"), {"a": 3}, seed=0).eval()
    with torch.inference_mode():
        outputs = student(torch.randn(1, 3, 16, 224, 224))
    assert (student.feature_dim, outputs["a"].shape) == (768, (1, 3))
    assert torch.isfinite(outputs["a"]).all()


def test_tiny_has_ten_convolutions_on_its_path() -> None:
    tiny = build_student(StudentConfig(name="tiny_r2plus1d_10"))
    assert isinstance(tiny, nn.Module)
    path = [n for n, m in tiny.named_modules() if isinstance(m, nn.Conv3d) and "shortcut" not in n]
    assert len(path) == 10


def test_mvit_refuses_other_clip_sizes() -> None:
    student = StudentConfig(name="mvit_v2_s")
    check_clip(student, ClipConfig(frames=16, crop=224))
    with pytest.raises(ConfigError, match="position tables") as caught:
        check_clip(student, ClipConfig(frames=8, crop=224))
    assert caught.value.expected == "clip.frames 16, clip.crop 224"


def test_flow_students_need_two_means() -> None:
    with pytest.raises(ConfigError, match="mean and std"):
        check_clip(StudentConfig(name="r3d_18", in_channels=2), ClipConfig())


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="tiny_r2plus1d_10"):
        build_student(StudentConfig(name="r3d_19"))


class _Plugged(nn.Module):
    feature_dim = 5

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(in_channels, 5)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.project(clip.mean(dim=(2, 3, 4)))
        return features


def test_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("plugged_student")
    module.build = _Plugged  # type: ignore[attr-defined]
    module.bad = lambda in_channels: nn.Identity()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "plugged_student", module)
    student = new_student(StudentConfig(name="plugin:plugged_student:build"), {"a": 3}, seed=0)
    assert student(torch.randn(2, 3, 2, 4, 4))["a"].shape == (2, 3)
    with pytest.raises(ConfigError, match="no backbone"):
        build_student(StudentConfig(name="plugin:plugged_student:bad"))
    with pytest.raises(ConfigError, match="cannot be imported"):
        build_student(StudentConfig(name="plugin:plugged_student:absent"))
    with pytest.raises(ConfigError, match="cannot be imported"):
        build_student(StudentConfig(name="plugin:no_such_module:build"))
