"""Finding, resizing and removing the classifier of a network."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from distinit.pipeline.teachers.heads import fit_classes, last_layer, remove_head
from distinit.schemas.errors import TeacherError, WeightsError


@pytest.mark.parametrize(
    ("name", "layer", "features"),
    [
        ("squeezenet1_1", "classifier.1", 512),
        ("resnet18", "fc", 512),
        ("mobilenet_v3_small", "classifier.3", 1024),
        ("alexnet", "classifier.6", 4096),
        ("vit_b_16", "heads.head", 768),
    ],
)
def test_the_last_layer_of_torchvision_classifiers_is_found_and_removed(
    name: str, layer: str, features: int
) -> None:
    with torch.device("meta"):  # no weights are needed to know the layers
        network = torchvision.models.get_model(name)
    assert last_layer(network)[0] == layer
    assert remove_head(network) == features
    assert isinstance(network.get_submodule(layer), nn.Identity)


def test_fit_classes_resizes_the_classifier_to_the_weights() -> None:
    network = nn.Sequential(nn.Linear(4, 10), nn.Linear(10, 5, bias=False))
    assert fit_classes(network, {"1.weight": torch.zeros(3, 10)}) == 3
    assert (network[1].in_features, network[1].out_features, network[1].bias) == (10, 3, None)


def test_fit_classes_keeps_a_classifier_that_fits() -> None:
    network = nn.Sequential(nn.Conv2d(4, 5, 1))
    layer = network[0]
    assert fit_classes(network, {"0.weight": torch.zeros(5, 4, 1, 1)}) == 5
    assert network[0] is layer


def test_a_network_or_weights_without_a_classifier_are_refused() -> None:
    with pytest.raises(TeacherError, match="can be its classifier"):
        last_layer(nn.Sequential(nn.ReLU()))
    with pytest.raises(WeightsError) as raised:
        fit_classes(nn.Sequential(nn.Linear(2, 2)), {"other": torch.zeros(1)})
    assert raised.value.expected == "a tensor 0.weight"


def test_a_classifier_of_an_invalid_shape_is_not_built() -> None:
    """A file without any data can contain a tensor of shape [10**9, 0]."""
    network = nn.Sequential(nn.Linear(3, 2))
    assert fit_classes(network, {"0.weight": torch.zeros(10**9, 0)}) == 2
    assert fit_classes(network, {"0.weight": torch.zeros(5)}) == 2
    assert network[0].weight.shape == (2, 3)
    for classes in (0, (1 << 20) + 1):
        weight = torch.zeros(1).expand(classes, 3)
        with pytest.raises(WeightsError, match=f"a classifier of {classes:,} classes"):
            fit_classes(network, {"0.weight": weight})
