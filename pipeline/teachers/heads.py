"""Finds, resizes or removes the last layer of a classifier."""

from __future__ import annotations

from torch import nn

from distinit.pipeline.teachers.weights import StateDict
from distinit.schemas.errors import TeacherError, WeightsError
from distinit.schemas.teacher import MAX_CLASSES

__all__ = ["classifier_is_no_projection", "fit_classes", "last_layer", "remove_head"]


def last_layer(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The layer that computes the class logits, and its name.

    It is the last Linear layer in order of definition or, in a network without any (SqueezeNet),
    the last convolution. Raises TeacherError if there is neither.
    """
    for kind in (nn.Linear, nn.Conv2d):
        layers = [(n, m) for n, m in network.named_modules() if isinstance(m, kind)]
        if layers:
            return layers[-1]
    raise TeacherError(
        f"{type(network).__name__} has no layer that can be its classifier",
        expected="a Linear or Conv2d layer",
        found="neither",
        remedy="write a plugin teacher for this network",
    )


def fit_classes(network: nn.Module, state_dict: StateDict) -> int:
    """Resize the classifier of ``network`` to the classes of ``state_dict``; return their number.

    If the stored classifier differs in any other dimension, the network stays unchanged, and
    loading reports the difference. Raises WeightsError if ``state_dict`` has no classifier, or one
    with too many classes.
    """
    name, layer = last_layer(network)
    weight = state_dict.get(f"{name}.weight")
    if weight is None or weight.ndim == 0:
        raise WeightsError(
            f"the weights have no classifier for {type(network).__name__}",
            expected=f"a tensor {name}.weight",
            found=f"{len(state_dict)} tensors, among them {', '.join(list(state_dict)[:3])}",
            remedy="name the architecture that these weights were trained with",
        )
    classes = int(weight.shape[0])
    if weight.shape[1:] != layer.weight.shape[1:]:
        return int(layer.weight.shape[0])
    if not 1 <= classes <= MAX_CLASSES:
        raise WeightsError(
            f"the weights have a classifier of {classes:,} classes",
            expected=f"1 .. {MAX_CLASSES:,}",
            found=f"{name}.weight of shape {list(weight.shape)}",
            remedy="name the architecture that these weights were trained with",
        )
    if classes != layer.weight.shape[0]:
        network.set_submodule(name, _with_outputs(layer, classes))
    return classes


def remove_head(network: nn.Module) -> int:
    """Replace the last layer by an identity; return the width of the features."""
    name, layer = last_layer(network)
    network.set_submodule(name, nn.Identity())
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def classifier_is_no_projection(name: str) -> TeacherError:
    """The error for pool ``head`` of a network whose last layer computes class logits."""
    return TeacherError(
        f"the last layer of {name} is a classifier",
        expected="a projection that is not class logits, for pool head",
        found="class logits",
        remedy="use target logits, or another pool",
    )


def _with_outputs(layer: nn.Linear | nn.Conv2d, outputs: int) -> nn.Linear | nn.Conv2d:
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, outputs, bias=bias)
    return nn.Conv2d(layer.in_channels, outputs, kernel_size=1, bias=bias)
