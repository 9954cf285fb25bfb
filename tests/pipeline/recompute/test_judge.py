"""Stored rows are judged by recomputed ones: what rounding and noise allow, and nothing more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.caches import make_teacher

from distinit.pipeline.cache.target_rows import TargetRows, target_rows
from distinit.pipeline.recompute.judge import JudgedRows, judge_rows
from distinit.pipeline.recompute.noise import spread_of
from distinit.schemas.teacher import TeacherRecord

CLASSES = 12
ALLOWED = 1e-3
LOGITS_NC = 3 * np.random.default_rng(0).standard_normal((4, CLASSES)).astype(np.float32)


def record(encoding: str, target: str = "logits") -> TeacherRecord:
    return make_teacher("t", classes=CLASSES, encoding=encoding, target=target)


def judged(encoding: str, stored: TargetRows, outputs_NC: np.ndarray = LOGITS_NC) -> JudgedRows:
    return judge_rows(record(encoding), stored.arrays, stored.confidence, outputs_NC, ALLOWED)


def stored_as(encoding: str, logits_NC: np.ndarray = LOGITS_NC) -> TargetRows:
    rows = target_rows(logits_NC, record(encoding))
    return replace(rows, arrays={name: values.copy() for name, values in rows.arrays.items()})


@pytest.mark.parametrize("encoding", ["float16", "int8", "topk:4"])
def test_the_same_outputs_have_the_same_bits(encoding: str) -> None:
    found = judged(encoding, stored_as(encoding))
    assert found.same_bits_N.all()
    assert found.targets_agree_N.all()
    assert found.confidence_agrees_N.all()


@pytest.mark.parametrize("encoding", ["float16", "int8", "topk:4"])
@pytest.mark.parametrize(("share", "agrees"), [(0.9, True), (40.0, False)])
def test_noise_is_allowed_up_to_the_floor(encoding: str, share: float, agrees: bool) -> None:
    """All logits of one row are shifted; an int8 step here is a fifteenth of the spread."""
    moved_NC = LOGITS_NC.copy()
    moved_NC[2] += share * ALLOWED * spread_of(LOGITS_NC)[2] * (4 if encoding == "int8" else 1)
    found = judged(encoding, stored_as(encoding, moved_NC))
    assert found.targets_agree_N.tolist() == [True, True, agrees, True]
    assert found.same_bits_N.tolist() == [True, True, False, True]


def test_a_level_of_int8_may_be_raised_only_so_far() -> None:
    """int8 may raise very unlikely classes; raised higher, likely classes would be lost."""
    wide_NC = np.tile(np.linspace(0, 50, CLASSES, dtype=np.float32), (2, 1))
    stored = stored_as("int8", wide_NC)
    assert judged("int8", stored, wide_NC).targets_agree_N.all()
    lowest = 40.0  # a fifth of the range is kept, where 0.6 is the least
    scale = np.float32((50 - lowest) / 255)
    stored.arrays["logits_affine"][1] = (scale, np.float32(lowest + 128 * scale))
    steps_C = np.rint((wide_NC[1] - stored.arrays["logits_affine"][1, 1]) / scale)
    stored.arrays["logits"][1] = steps_C.clip(-128, 127)
    assert judged("int8", stored, wide_NC).targets_agree_N.tolist() == [True, False]


@pytest.mark.parametrize("ids", [[0, 0], [CLASSES, 0], [CLASSES - 1, CLASSES - 2]])
def test_the_classes_of_topk_are_the_right_ones(ids: list[int]) -> None:
    ascending_NC = np.tile(np.arange(CLASSES, 0, -1, dtype=np.float32), (2, 1))
    stored = stored_as("topk:2", ascending_NC)
    assert stored.arrays["logits_ids"].tolist() == [[0, 1], [0, 1]]
    stored.arrays["logits_ids"][1] = ids
    assert judged("topk:2", stored, ascending_NC).targets_agree_N.tolist() == [True, False]


@pytest.mark.parametrize("name", ["entropy_nats", "top1_class", "top1_probability", "log_z"])
def test_the_confidence_must_be_that_of_the_outputs(name: str) -> None:
    stored = stored_as("topk:4")
    values_N = stored.confidence[name].copy()
    values_N[1] = (values_N[1] + 1) % CLASSES if name == "top1_class" else values_N[1] + 0.5
    stored = replace(stored, confidence={**stored.confidence, name: values_N})
    found = judged("topk:4", stored)
    assert found.confidence_agrees_N.tolist() == [True, False, True, True]
    assert found.targets_agree_N.all()


def test_nan_never_agrees() -> None:
    stored = stored_as("float16")
    stored.arrays["logits"][0, 3] = np.nan
    found = judged("float16", stored)
    assert found.targets_agree_N.tolist() == [False, True, True, True]
    assert found.deviation_N[0] == np.inf


def test_features_have_no_confidence() -> None:
    rows = target_rows(LOGITS_NC, record("float16", "features"))
    found = judge_rows(record("float16", "features"), rows.arrays, {}, LOGITS_NC, ALLOWED)
    assert found.same_bits_N.all()
    assert found.confidence_agrees_N.all()
