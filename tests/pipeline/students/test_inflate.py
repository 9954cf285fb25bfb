"""An inflated network maps a clip of one repeated image to the features of the image."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from distinit.pipeline.students.heads import Student, new_student
from distinit.pipeline.students.inflate import image_weights, inflate_backbone
from distinit.schemas.errors import CheckpointError, ConfigError, WeightsError
from distinit.schemas.training import StudentConfig


def resnet18(seed: int = 0) -> torchvision.models.ResNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = torchvision.models.resnet18(num_classes=7)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.get_buffer("running_mean").uniform_(-0.2, 0.2)
                module.get_buffer("running_var").uniform_(0.5, 1.5)
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


def inflated(name: str, file: Path, in_channels: int = 3) -> Student:
    config = StudentConfig(name=name, in_channels=in_channels)
    student = new_student(config, {"labels": 2}, seed=0)
    inflate_backbone(student, config, file)
    return student.eval()


@torch.inference_mode()
def test_a_still_clip_has_the_features_of_its_image(image_file: Path) -> None:
    student = inflated("r3d_18", image_file)
    network = resnet18()
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    clip = image.unsqueeze(2).expand(-1, -1, 9, -1, -1)
    stem, first = student.get_submodule("backbone.stem"), student.get_submodule("backbone.layer1.0")
    expected = network.relu(network.bn1(network.conv1(image)))
    # Because of zero padding in time, each convolution changes one more frame at both ends.
    torch.testing.assert_close(stem(clip)[:, :, 4], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        first(stem(clip))[:, :, 4], network.layer1[0](expected), rtol=1e-4, atol=1e-5
    )


def test_weights_are_repeated_over_time_and_divided(image_file: Path) -> None:
    student, image = inflated("vmz_r3d_18", image_file), resnet18().state_dict()
    state = student.state_dict()
    conv = state["backbone.layer3.0.conv2.0.weight"]
    for frame in range(3):
        torch.testing.assert_close(conv[:, :, frame] * 3, image["layer3.0.conv2.weight"])
    down = state["backbone.layer2.0.downsample.0.weight"]
    torch.testing.assert_close(down[:, :, 0], image["layer2.0.downsample.0.weight"])
    for ours, theirs in (("layer2.0.downsample.1", "layer2.0.downsample.1"), ("stem.1", "bn1")):
        for part in ("weight", "bias", "running_mean", "running_var"):
            assert torch.equal(state[f"backbone.{ours}.{part}"], image[f"{theirs}.{part}"])


def test_the_report_lists_every_tensor(image_file: Path) -> None:
    config = StudentConfig(name="r3d_18")
    student = new_student(config, {"labels": 2}, seed=0)
    report = inflate_backbone(student, config, image_file)
    assert len(report.loaded) == len(student.state_dict()) - 2
    assert report.reinitialised == ("heads.labels.bias", "heads.labels.weight")
    assert report.unused == ("fc.bias", "fc.weight")


def test_convolutions_without_a_time_axis_are_copied(image_file: Path) -> None:
    state, image = inflated("mc3_18", image_file).state_dict(), resnet18().state_dict()
    weight = state["backbone.layer4.1.conv1.0.weight"]
    assert weight.shape[2] == 1
    torch.testing.assert_close(weight[:, :, 0], image["layer4.1.conv1.weight"])


def test_flow_channels_get_the_mean_over_rgb(image_file: Path) -> None:
    state = inflated("r3d_18", image_file, in_channels=2).state_dict()
    expected = resnet18().state_dict()["conv1.weight"].mean(dim=1) / 3
    stem = state["backbone.stem.0.weight"]
    assert stem.shape == (64, 2, 3, 7, 7)
    for channel in range(2):
        torch.testing.assert_close(stem[:, channel, 1], expected)


@pytest.mark.parametrize("name", ["r2plus1d_18", "vmz_r2plus1d_34", "tiny_r2plus1d_10", "s3d"])
def test_students_without_a_2d_counterpart_are_rejected(name: str, image_file: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be inflated"):
        image_weights(StudentConfig(name=name), image_file)


def test_weights_of_another_network_are_rejected(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "resnet34.pth")
    # Only names and shapes matter, so no random weights are needed.
    with torch.device("meta"):
        shapes = torchvision.models.resnet50().state_dict()
    zeros = {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in shapes.items()}
    torch.save(zeros, tmp_path / "resnet50.pth")
    student = new_student(StudentConfig(name="vmz_r3d_34"), {"labels": 2}, seed=0)
    inflate_backbone(student, StudentConfig(name="vmz_r3d_34"), tmp_path / "resnet34.pth")
    for other in ("resnet34.pth", "resnet50.pth"):  # resnet34 has all the names of a resnet18
        with pytest.raises(CheckpointError, match="is not a resnet18"):
            inflated("r3d_18", tmp_path / other)
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="is not a resnet18"):
        inflated("r3d_18", tmp_path / "other.pth")


@torch.inference_mode()
def test_a_tiny_student_is_inflated_from_a_distilled_image_network(tmp_path: Path) -> None:
    image_config = StudentConfig(name="tiny_r2d_9")
    image_student = new_student(image_config, {"imagenet": 5}, seed=3).eval()
    safetensors.torch.save_file(image_student.state_dict(), tmp_path / "student.safetensors")
    config = StudentConfig(name="tiny_r3d_9")
    file = image_weights(config, tmp_path / "student.safetensors")
    student = new_student(config, {"labels": 2}, seed=0).eval()
    report = inflate_backbone(student, config, file)
    assert report.reinitialised == ("heads.labels.bias", "heads.labels.weight")
    assert report.unused == ("heads.imagenet.bias", "heads.imagenet.weight")
    image = torch.rand(1, 3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    frames = image[:, :, 0]
    stem = student.get_submodule("backbone.stem")
    expected = image_student.get_submodule("backbone.stem")(frames)
    inflated_clip = stem(image.expand(-1, -1, 5, -1, -1))
    torch.testing.assert_close(inflated_clip[:, :, 2], expected, rtol=1e-4, atol=1e-5)


def test_a_tiny_student_needs_a_file_to_inflate_from() -> None:
    with pytest.raises(WeightsError, match="tiny_r2d_9 has no published weights"):
        image_weights(StudentConfig(name="tiny_r3d_9"), None)


def test_the_error_for_missing_weights_names_the_expected_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="resnet18 to inflate from") as raised:
        image_weights(StudentConfig(name="r3d_18"), None)
    assert "resnet18-f37072fd.pth" in str(raised.value)
