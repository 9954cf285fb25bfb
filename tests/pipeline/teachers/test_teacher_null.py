"""The null teacher computes exactly the documented values."""

from __future__ import annotations

import numpy as np
import pytest

from distinit.pipeline.teachers.null import COLOURS, NullTeacher
from distinit.pipeline.video.views import View
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import TeacherRequest


def test_logits_have_the_documented_values() -> None:
    frames_NHWC = np.zeros((2, 4, 6, 3), dtype=np.uint8)
    frames_NHWC[1, :, :3] = 255  # mean (.5, .5, .5)
    logits_NC = NullTeacher(TeacherRequest(name="null")).forward(frames_NHWC)
    names = list(COLOURS)
    assert logits_NC.shape == (2, 16)
    assert logits_NC.dtype == np.float32
    assert logits_NC[0, names.index("black")] == 0.0
    assert logits_NC[0, names.index("white")] == -48.0
    assert logits_NC[0, names.index("red")] == -16.0
    assert logits_NC[1, names.index("white")] == -12.0
    assert logits_NC[1, names.index("grey")] == np.float32(-48 * (128 / 255 - 0.5) ** 2)
    assert names[int(logits_NC[1].argmax())] == "grey"


def test_a_frame_of_each_colour_is_recognised() -> None:
    frames_NHWC = np.array(list(COLOURS.values()), dtype=np.uint8)[:, None, None]
    logits_NC = NullTeacher(TeacherRequest(name="null")).forward(frames_NHWC)
    assert logits_NC.argmax(axis=1).tolist() == list(range(16))
    assert logits_NC.max(axis=1).tolist() == [0.0] * 16


def test_exact_and_fast_have_their_views_and_identities() -> None:
    exact = NullTeacher(TeacherRequest(name="null"))
    fast = NullTeacher(TeacherRequest(name="null", resize="fast"))
    assert (exact.id, fast.id) == ("null", "null-fast")
    assert (exact.view, fast.view) == (View.source(), View.squash(32, 32))
    assert exact.identity.label_names == tuple(COLOURS)
    assert exact.identity.classes == 16
    assert exact.identity.fingerprint != fast.identity.fingerprint


def test_weights_and_features_are_refused() -> None:
    with pytest.raises(TeacherError, match="no weights and no features"):
        NullTeacher(TeacherRequest(name="null", weights="w.pth"))
    with pytest.raises(TeacherError, match="no weights and no features"):
        NullTeacher(TeacherRequest(name="null", target="features"))
