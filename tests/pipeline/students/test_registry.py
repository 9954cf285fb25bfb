"""Students by name: feature widths, parameter counts, input channels, rejected names and clips."""

from __future__ import annotations

import sys
import types

import pytest
import torch
import torchvision
from torch import nn

from distinit.pipeline.students.heads import new_student
from distinit.pipeline.students.registry import STUDENT_NAMES, build_student, check_clip
from distinit.pipeline.students.tiny import TINY_STUDENTS
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


def vmz_parameters(*, depth: int, factored: bool) -> int:
    """Parameters of a VMZ network with 400 classes, computed from its published description."""
    blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}[depth]

    def convolution(inputs: int, outputs: int) -> int:
        if not factored:
            return 27 * inputs * outputs + 2 * outputs
        middle = 27 * inputs * outputs // (9 * inputs + 3 * outputs)
        return 9 * inputs * middle + 2 * middle + 3 * middle * outputs + 2 * outputs

    factored_stem = 3 * 45 * 49 + 2 * 45 + 45 * 64 * 3 + 2 * 64
    stem = 3 * 64 * 3 * 49 + 2 * 64
    total = factored_stem if factored else stem
    inputs = 64
    for outputs, count in zip((64, 128, 256, 512), blocks, strict=True):
        if inputs != outputs:  # the shortcut's 1x1x1 convolution
            total += inputs * outputs + 2 * outputs
        total += convolution(inputs, outputs) + (2 * count - 1) * convolution(outputs, outputs)
        inputs = outputs
    return total + 512 * 400 + 400


@pytest.mark.parametrize("depth", [18, 34])
@pytest.mark.parametrize("name", ["r3d", "r2plus1d"])
def test_vmz_parameter_counts(name: str, depth: int) -> None:
    config = StudentConfig(name=f"vmz_{name}_{depth}")
    student = new_student(config, {"kinetics": 400}, seed=0)
    expected = vmz_parameters(depth=depth, factored=name == "r2plus1d")
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
        ("tiny_r2plus1d_14", 192, (8, 16)),
        ("tiny_r3d_9", 128, (8, 16)),
        ("tiny_r2d_9", 128, (1, 16)),
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
@pytest.mark.parametrize("name", STUDENT_NAMES)
def test_every_student_accepts_8_16_and_32_frames(name: str, frames: int) -> None:
    check_clip(StudentConfig(name=name), ClipConfig(frames=frames))
    student = new_student(StudentConfig(name=name), {"a": 3}, seed=0).eval()
    crop = 32 if name == "s3d" else 16
    with torch.inference_mode():
        outputs = student(torch.randn(1, 3, frames, crop, crop))
    assert outputs["a"].shape == (1, 3)
    assert torch.isfinite(outputs["a"]).all()


@pytest.mark.parametrize("name", STUDENT_NAMES)
def test_every_student_accepts_any_crop(name: str) -> None:
    student = new_student(StudentConfig(name=name), {"a": 3}, seed=0).eval()
    for crop in (33, 48):
        check_clip(StudentConfig(name=name), ClipConfig(frames=8, crop=crop))
        with torch.inference_mode():
            outputs = student(torch.randn(1, 3, 8, crop, crop))
        assert torch.isfinite(outputs["a"]).all()


@pytest.mark.parametrize(("frames", "crop"), [(16, 96), (8, 64)])
def test_mvit_equals_torchvision_with_the_size_of_the_clip(frames: int, crop: int) -> None:
    student = build_student(StudentConfig(name="mvit_v2_s"))
    assert isinstance(student, nn.Module)
    plain = torchvision.models.video.mvit_v2_s()
    plain.load_state_dict(student.state_dict() | plain.head.state_dict(prefix="head."))
    plain.pos_encoding.temporal_size = frames // 2
    plain.pos_encoding.spatial_size = (crop // 4, crop // 4)
    plain.head = nn.Identity()
    clip = torch.randn(1, 3, frames, crop, crop)
    with torch.inference_mode():
        features = student.eval()(clip)
        assert torch.equal(features, plain.eval()(clip))
    assert features.shape == (1, 768)
    assert torch.isfinite(features).all()


@pytest.mark.parametrize("name", TINY_STUDENTS)
def test_the_name_of_a_tiny_student_counts_its_convolutions(name: str) -> None:
    tiny = build_student(StudentConfig(name=name))
    assert isinstance(tiny, nn.Module)
    names = [n for n, m in tiny.named_modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    assert len([n for n in names if "shortcut" not in n]) == int(name.rpartition("_")[2])


def test_the_image_network_averages_its_features_over_the_frames() -> None:
    student = build_student(StudentConfig(name="tiny_r2d_9"))
    assert isinstance(student, nn.Module)
    student.eval()
    clip = torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        frames = torch.stack([student(clip[:, :, t : t + 1]) for t in range(4)])
        torch.testing.assert_close(student(clip), frames.mean(dim=0))


@pytest.mark.parametrize(("frames", "crop"), [(4, 32), (8, 16)])
def test_clips_that_are_too_small_for_s3d_are_rejected(frames: int, crop: int) -> None:
    student = StudentConfig(name="s3d")
    check_clip(student, ClipConfig(frames=5, crop=17))
    network = new_student(student, {"a": 3}, seed=0).eval()
    with torch.inference_mode():
        assert network(torch.randn(1, 3, 5, 17, 17))["a"].shape == (1, 3)
        with pytest.raises(RuntimeError, match="too small"):
            network(torch.randn(1, 3, frames, crop, crop))
    with pytest.raises(ConfigError, match="clips are too small for the pooling of s3d") as caught:
        check_clip(student, ClipConfig(frames=frames, crop=crop))
    assert caught.value.expected == "clip.frames of at least 5 and clip.crop of at least 17"


def test_flow_students_need_a_mean_per_channel() -> None:
    with pytest.raises(ConfigError, match="mean and std"):
        check_clip(StudentConfig(name="r3d_18", in_channels=2), ClipConfig())


def test_the_error_for_an_unknown_name_lists_the_known_names() -> None:
    with pytest.raises(ConfigError, match="tiny_r2plus1d_10"):
        build_student(StudentConfig(name="r3d_19"))


class _PluginBackbone(nn.Module):
    feature_dim = 5

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(in_channels, 5)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.project(clip.mean(dim=(2, 3, 4)))
        return features


def test_plugins_are_built_or_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("plugged_student")
    module.build = _PluginBackbone  # type: ignore[attr-defined]
    module.bad = lambda in_channels: nn.Identity()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "plugged_student", module)
    student = new_student(StudentConfig(name="plugin:plugged_student:build"), {"a": 3}, seed=0)
    assert student(torch.randn(2, 3, 2, 4, 4))["a"].shape == (2, 3)
    with pytest.raises(ConfigError, match="did not return a backbone"):
        build_student(StudentConfig(name="plugin:plugged_student:bad"))
    with pytest.raises(ConfigError, match="has no function absent"):
        build_student(StudentConfig(name="plugin:plugged_student:absent"))
    with pytest.raises(ConfigError, match="cannot be imported"):
        build_student(StudentConfig(name="plugin:no_such_module:build"))


class _NotPooled(_PluginBackbone):
    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.project(clip)
        return features


class _Infinite(_PluginBackbone):
    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return super().forward(clip) / 0


class _Narrow(_PluginBackbone):
    feature_dim = 7


class _WordedWidth(_PluginBackbone):
    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        vars(self)["feature_dim"] = "5"


def _no_network(in_channels: int) -> nn.Module:
    raise ValueError(f"no network for {in_channels} channels")


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (_Narrow, ["tensor of shape [2, 7] for two clips", "found:    a tensor of shape [2, 5]"]),
        (_NotPooled, ["failed on two clips", "[2, 3, 2, 16, 16]", "test_registry.py, line"]),
        (_Infinite, ["not finite", "NaN or infinity"]),
        (_WordedWidth, ["found:    a network, feature_dim: a text"]),
        (_no_network, ["no network for 3 channels", "test_registry.py, line"]),
        (lambda _: None, ["found:    nothing"]),
        (lambda _: _PluginBackbone, ["found:    a class instead of an object"]),
    ],
)
def test_a_plugin_is_run_once_before_any_work(
    build: object, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("plugged_student")
    vars(module)["build"] = build
    monkeypatch.setitem(sys.modules, "plugged_student", module)
    student = StudentConfig(name="plugin:plugged_student:build")
    before = torch.get_rng_state()
    with pytest.raises(ConfigError) as caught:
        check_clip(student, ClipConfig(frames=2, crop=16))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert torch.equal(torch.get_rng_state(), before)
