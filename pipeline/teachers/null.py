"""A teacher without a network: cheap, exact logits for benchmarks, tests and dry runs."""

from __future__ import annotations

import hashlib

import numpy as np

from distinit.pipeline.teachers.base import Teacher, frames_or_error
from distinit.pipeline.teachers.network import name_default_id, named_labels
from distinit.pipeline.teachers.probe import answer_record, probe_frame
from distinit.pipeline.video.views import View
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import PreprocessSpec, TeacherIdentity, TeacherRequest

__all__ = ["COLOURS", "NullTeacher"]

COLOURS = {
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "silver": (192, 192, 192),
    "white": (255, 255, 255),
    "maroon": (128, 0, 0),
    "red": (255, 0, 0),
    "olive": (128, 128, 0),
    "yellow": (255, 255, 0),
    "green": (0, 128, 0),
    "lime": (0, 255, 0),
    "teal": (0, 128, 128),
    "aqua": (0, 255, 255),
    "navy": (0, 0, 128),
    "blue": (0, 0, 255),
    "purple": (128, 0, 128),
    "fuchsia": (255, 0, 255),
}
"""The sixteen basic web colours (R, G, B)."""

_SHARPNESS = 16.0
_FAST_SIDE = 32
_UINT16_ROWS = 257  # 257 * 255 = 65535: sums of so many bytes cannot overflow
_PALETTE_C3 = np.array(list(COLOURS.values()), dtype=np.float64) / 255


class NullTeacher(Teacher):
    """Names a frame's mean colour: logit c = -16 |mean RGB - colour c|², colours in 0..1.

    The mean is an exact sum of integers, computed in float64: a frame all black has logit 0
    for black and -48 for white, on every machine. With ``resize: fast`` it is the mean of
    ffmpeg's 32x32 picture, which spares the transport of full frames.
    """

    def __init__(self, request: TeacherRequest) -> None:
        if request.weights is not None or request.target != "logits" or request.flip:
            raise TeacherError(
                "the null teacher has no weights and no features, and knows no left from right",
                expected="--teacher null alone",
                found=f"weights {request.weights}, target {request.target}, flip {request.flip}",
                remedy="leave out weights and flip, and take target logits",
            )
        labels = named_labels(list(COLOURS))
        identity = TeacherIdentity(
            architecture="null/mean-colour",
            weights_sha256=hashlib.sha256(_PALETTE_C3.tobytes()).hexdigest(),
            preprocessing=_preprocessing(request),
            classes=len(COLOURS),
            label_space=labels.space,
            label_names=labels.names,
        )
        super().__init__(request.id or name_default_id(["null"], request), identity, "cpu")
        answer_C = self.forward(probe_frame(self.view)[None])[0]
        probe = answer_record(answer_C, identity.architecture)
        self.identity = identity.model_copy(update={"probe": probe})

    @property
    def view(self) -> View:
        if self.identity.preprocessing.resize == "exact":
            return View.source()
        return View.squash(_FAST_SIDE, _FAST_SIDE)

    def forward(self, frames_NHWC: np.ndarray) -> np.ndarray:
        frames_or_error(frames_NHWC)
        height, width = frames_NHWC.shape[1:3]
        mean_N3 = _pixel_sums(frames_NHWC) / (255.0 * height * width)
        distance_NC = ((mean_N3[:, None, :] - _PALETTE_C3) ** 2).sum(axis=-1)
        logits_NC: np.ndarray = (0.0 - _SHARPNESS * distance_NC).astype(np.float32)
        return logits_NC


def _pixel_sums(frames_NHWC: np.ndarray) -> np.ndarray:
    """Exact sums over the pixels of each channel, int64 [N, 3].

    numpy adds the rows of a frame 30 times as fast as its pixels, where the channel is the
    innermost axis.
    """
    frames, height, width, channels = frames_NHWC.shape
    rows_NHX = frames_NHWC.reshape(frames, height, width * channels)
    sum_NX = np.zeros((frames, width * channels), dtype=np.int64)
    for top in range(0, height, _UINT16_ROWS):
        sum_NX += rows_NHX[:, top : top + _UINT16_ROWS].sum(axis=1, dtype=np.uint16)
    return sum_NX.reshape(frames, width, channels).sum(axis=1)


def _preprocessing(request: TeacherRequest) -> PreprocessSpec:
    # Squashing to one pixel is what a mean over the frame amounts to.
    side = 1 if request.resize == "exact" else _FAST_SIDE
    return PreprocessSpec(
        resize_mode="squash",
        resize_size=side,
        crop_size=side,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        resize=request.resize,
    )
