"""How published weights were trained, as far as it changes how confident the teacher is.

The techniques are those in the commands that the sources name (decision 28).
"""

from __future__ import annotations

from torchvision.models import WeightsEnum

from distinit.schemas.teacher import WeightsRecipe

__all__ = ["EFFICIENTNET_LITE", "timm_recipe", "torchvision_recipe"]

_ALL_THREE = ("label smoothing", "mixup", "CutMix")

_REFERENCES = "pytorch/vision/tree/main/references/classification#"
_TORCHVISION: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            f"{_REFERENCES}alexnet-and-vgg",
            f"{_REFERENCES}resnet",
            f"{_REFERENCES}resnext",
            f"{_REFERENCES}mobilenetv2",
            f"{_REFERENCES}mobilenetv3-large--small",
            f"{_REFERENCES}small-models",
            f"{_REFERENCES}medium-models",
            f"{_REFERENCES}large-models",
        ),
        (),
    ),
    **dict.fromkeys(
        (
            f"{_REFERENCES}vit_b_16",
            f"{_REFERENCES}vit_b_32",
            f"{_REFERENCES}vit_l_16",
            f"{_REFERENCES}vit_l_32",
            f"{_REFERENCES}convnext",
            f"{_REFERENCES}swintransformer",
            f"{_REFERENCES}swintransformer-v2",
            "pytorch/vision/pull/5906",  # ShuffleNet V2 x1.5 and x2.0
            "pytorch/vision/issues/3995#issuecomment-1013906621",  # ResNet-50
            "pytorch/vision/issues/3995#new-recipe",
            "pytorch/vision/issues/3995#new-recipe-with-fixres",
            "pytorch/vision/issues/3995#new-recipe-with-reg-tuning",
            "pytorch/vision/issues/3995#new-recipe-with-lr-wd-crop-tuning",
        ),
        _ALL_THREE,
    ),
    f"{_REFERENCES}maxvit": ("label smoothing", "mixup"),
}
"""Recipe in torchvision's metadata, without https://github.com/ -> softening techniques.

Weights that were ported from elsewhere are missing: how they were trained is not known here.
"""

_TIMM: dict[str, tuple[str, ...]] = {
    "a1_in1k": _ALL_THREE,
    "a2_in1k": ("mixup", "CutMix"),
    "a3_in1k": ("mixup", "CutMix"),
    "tv_in1k": (),
    "tv2_in1k": _ALL_THREE,
}
"""Tag in a timm name -> softening techniques: those of Wightman et al. 2021, and torchvision's."""

EFFICIENTNET_LITE = WeightsRecipe(
    name="EfficientNet-Lite",
    source="https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite",
    softened_by=("label smoothing",),
)


def torchvision_recipe(weights: WeightsEnum) -> WeightsRecipe:
    """The recipe of published weights, from torchvision's metadata."""
    source = str(weights.meta.get("recipe", ""))
    return WeightsRecipe(
        name=weights.name,
        source=source,
        softened_by=_TORCHVISION.get(source.removeprefix("https://github.com/")),
    )


def timm_recipe(name: str) -> WeightsRecipe | None:
    """The recipe that a timm name with a tag claims (``resnet50.a1_in1k``), else None.

    The weights come from a file of the user: nothing checks that they are those of the tag.
    """
    _, _, tag = name.partition(".")
    if not tag:
        return None
    return WeightsRecipe(name=tag, source=f"the name timm:{name}", softened_by=_TIMM.get(tag))
