"""A plugin teacher: the image tower of a CLIP, with the preprocessing of open_clip.

    PYTHONPATH=examples distinit extract --videos clips/ --cache cache --target features \\
        --teacher plugin:clip_teacher:clip_teacher --weights clip/open_clip_model.safetensors

``open_clip_config.json`` lies beside the weights, as in open_clip's folders on Hugging Face.
``clip_vocabulary.py`` makes vocabularies with the text tower of the same weights. Both need
open_clip (``pip install open_clip_torch``), and download nothing.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distinit.pipeline.teachers.plugin import TeacherParts
from distinit.pipeline.teachers.weights import load_strictly, read_state_dict
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import PreprocessSpec
from distinit.schemas.wording import reason_of

CONFIG_FILE = "open_clip_config.json"
RESIZE_MODES = {"shortest": "short_edge", "squash": "squash"}
"""open_clip's names of them -> those of ``PreprocessSpec``."""


class ImageTower(nn.Module):
    """Pictures [N, 3, H, W] -> features [N, D] in the space of the texts, of any norm."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.visual = clip.visual

    def forward(self, picture_NCHW: torch.Tensor) -> torch.Tensor:
        features_ND: torch.Tensor = self.visual(picture_NCHW)
        return features_ND


def load_clip(weights: Path) -> Any:
    """A network of open_clip, as the configuration beside ``weights`` describes it.

    Raises TeacherError if open_clip cannot build it without a network connection, and WeightsError
    if the weights do not fit.
    """
    state_dict = read_state_dict(weights)
    _require_local(weights.with_name(CONFIG_FILE))
    try:
        import open_clip
    except ModuleNotFoundError as error:
        raise TeacherError(
            "open_clip is not installed", remedy="pip install open_clip_torch"
        ) from error
    logging.disable(logging.WARNING)  # it warns of random weights, which are replaced below
    try:
        clip = open_clip.create_model(f"local-dir:{weights.parent}", load_weights=False)
    except (AssertionError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise TeacherError(
            f"open_clip cannot build the network of {weights.with_name(CONFIG_FILE)}",
            expected="the configuration that belongs to the weights",
            found=reason_of(error),
            remedy="copy it again from where the weights come from",
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    load_strictly(clip, state_dict, source=str(weights))
    return clip.eval()


def _require_local(config: Path) -> None:
    """Raise TeacherError unless ``config`` exists, and names no text tower of Hugging Face."""
    try:
        text = json.loads(config.read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
        hub = [str(text[key]) for key in ("hf_model_name", "hf_tokenizer_name") if text.get(key)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TeacherError(
            f"{config} cannot be used",
            expected=f"the {CONFIG_FILE} of the weights, with a model_cfg",
            found=error.strerror if isinstance(error, OSError) else "something else",
            remedy="copy it from where the weights come from; docs/vocabularies.md says how to "
            "write one",
        ) from error
    if hub:
        raise TeacherError(
            "the text tower of this CLIP would be downloaded",
            expected="a text tower of open_clip itself",
            found=hub[0],
            remedy="write the vocabulary with write_vocabulary, see docs/vocabularies.md",
        )


def preprocessing_of(clip: Any) -> PreprocessSpec:
    """open_clip's preprocessing for evaluation. Raises TeacherError if it is not supported."""
    found = clip.visual.preprocess_cfg
    size = found["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width or found["resize_mode"] not in RESIZE_MODES:
        raise TeacherError(
            "the preprocessing of this CLIP is not supported",
            expected=f"a square input, resize mode {' or '.join(RESIZE_MODES)}",
            found=f"{height} x {width} pixels, resize mode {found['resize_mode']}",
        )
    return PreprocessSpec.model_validate(
        {
            "resize_mode": RESIZE_MODES[found["resize_mode"]],
            "resize_size": height,
            "crop_size": height,
            **{key: found[key] for key in ("interpolation", "mean", "std")},
        }
    )


def clip_teacher(weights: str | None, device: str) -> TeacherParts:
    """The plugin. Raises TeacherError without weights, WeightsError if they do not fit."""
    if weights is None:
        raise TeacherError("this teacher needs --weights FILE", remedy="name the weights of CLIP")
    clip = load_clip(Path(weights))
    return ImageTower(clip).to(device), preprocessing_of(clip), (), ""
