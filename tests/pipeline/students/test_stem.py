"""The first layer of every kind of student as space-time kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from distinit.pipeline.students.base import as_backbone
from distinit.pipeline.students.heads import Student, new_student
from distinit.pipeline.students.stem import read_stem
from distinit.schemas.errors import ConfigError
from distinit.schemas.training import StudentConfig


@pytest.mark.parametrize(
    ("name", "channels", "kernel", "spatial"),
    [
        ("vmz_r3d_18", 3, (64, 3, 3, 7, 7), None),
        ("vmz_r3d_18", 2, (64, 2, 3, 7, 7), None),
        ("vmz_r2plus1d_18", 3, (64, 3, 3, 7, 7), (45, 3, 7, 7)),
        ("s3d", 3, (64, 3, 7, 7, 7), (64, 3, 7, 7)),
        ("tiny_r2plus1d_10", 2, (16, 2, 3, 7, 7), (16, 2, 7, 7)),
        ("swin3d_t", 3, (96, 3, 2, 4, 4), None),
    ],
)
def test_kernels_have_the_shape_of_the_first_layer(
    name: str, channels: int, kernel: tuple[int, ...], spatial: tuple[int, ...] | None
) -> None:
    config = StudentConfig.model_validate({"name": name, "in_channels": channels})
    stem = read_stem(new_student(config, {"a": 2}, 0))
    assert stem.kernel_OITHW.shape == kernel
    assert (None if stem.spatial_MIHW is None else stem.spatial_MIHW.shape) == spatial


def test_a_3d_stem_is_its_own_kernel() -> None:
    student = new_student(StudentConfig(name="vmz_r3d_18"), {"a": 2}, 0)
    weight = student.state_dict()["backbone.stem.0.weight"].numpy()
    np.testing.assert_array_equal(read_stem(student).kernel_OITHW, weight)


def test_the_kernel_of_a_factorised_stem_responds_as_its_layers_without_the_relu() -> None:
    student = new_student(StudentConfig(name="vmz_r2plus1d_18"), {"a": 2}, 0).eval()
    stem = student.get_submodule("backbone.stem")
    norm = stem.get_submodule("1")
    assert isinstance(norm, nn.BatchNorm3d)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        assert norm.running_var is not None
        norm.weight.copy_(torch.rand(45, generator=generator) + 0.5)
        norm.running_var.copy_(torch.rand(45, generator=generator) + 0.5)
        clip = torch.randn(1, 3, 5, 21, 21, generator=generator)
        layers = nn.Sequential(*(stem.get_submodule(str(i)) for i in (0, 1, 3)))
        kernel = torch.from_numpy(read_stem(student).kernel_OITHW)
        product = nn.functional.conv3d(clip, kernel, stride=(1, 2, 2), padding=(1, 3, 3))
        torch.testing.assert_close(product, layers(clip), rtol=1e-3, atol=1e-3)


def test_a_network_without_a_3d_convolution_is_refused() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(ConfigError, match="filters of this network cannot be shown"):
        read_stem(Student(as_backbone(flat, 4), {"a": 2}))
