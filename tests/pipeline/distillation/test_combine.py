"""The mean of the targets of several teachers equals one computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import sources
from pydantic import ValidationError
from scipy.special import softmax

from distinit.pipeline.distillation.combine import label_space_digest
from distinit.pipeline.distillation.task import DistillTask, open_distill_task
from distinit.pipeline.training.epoch_samples import samples_of
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError

SAMPLES = np.arange(60)


@pytest.fixture(scope="module")
def two_teachers(tmp_path_factory: pytest.TempPathFactory, stored: Path) -> Path:
    """Path of a cache with two teachers of the same seven classes; ``task_of`` writes it."""
    return tmp_path_factory.mktemp("two-teachers") / "cache"


def task_of(two_teachers: Path, stored: Path, **changes: Any) -> DistillTask:
    if not two_teachers.exists():
        sources.write_cache(two_teachers, ("alpha", "gamma"))
    targets = changes.pop("targets", [{}, {}])
    named = [{"teacher": n, **t} for n, t in zip(("alpha", "gamma"), targets, strict=True)]
    values = {
        "cache": str(two_teachers),
        "frames": str(stored / "frames"),
        "out": "unused",
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 1, "crop": 16},
        "optimizer": {"clips_per_epoch": 60},
        "combine": "mean",
        "targets": named,
    }
    return open_distill_task(DistillConfig.model_validate(values | changes))


def logits_of_clips(task: DistillTask) -> dict[str, np.ndarray]:
    """Logits [60, 7] of both teachers for the only frame of every clip."""
    choices = task._sampler.choices(0, SAMPLES)
    pairs = [
        (task.videos.cache_ids[v], int(f[0]))
        for v, f in zip(choices.video_N, choices.frames_NT, strict=True)
    ]
    return {
        name: np.stack([sources.logits_of(video, name, frame) for video, frame in pairs])
        for name in ("alpha", "gamma")
    }


def test_logits_are_averaged_before_the_softmax(two_teachers: Path, stored: Path) -> None:
    task = task_of(two_teachers, stored, targets=[{"weight": 3.0}, {"weight": 1.0}])
    found = task.load(0, SAMPLES).targets
    logits = logits_of_clips(task)
    expected = softmax(0.75 * logits["alpha"] + 0.25 * logits["gamma"], axis=1)
    assert found.keys() == {"target/mean", "weight/mean", "present/mean"}
    assert np.abs(found["target/mean"].numpy() - expected).max() < 1e-6
    assert found["weight/mean"].tolist() == [1.0] * 60


def test_probabilities_are_averaged_after_the_softmax(two_teachers: Path, stored: Path) -> None:
    target = {"average": "probabilities", "temperature": 2.0}
    task = task_of(two_teachers, stored, targets=[target, target])
    found = task.load(0, SAMPLES).targets["target/mean"].numpy()
    logits = logits_of_clips(task)
    parts = [softmax(logits[name].astype(np.float64) / 2, axis=1) for name in logits]
    assert np.abs(found - (parts[0] + parts[1]) / 2).max() < 1e-6
    soft = task_of(two_teachers, stored, targets=[{"temperature": 2.0}] * 2)
    other = soft.load(0, SAMPLES).targets["target/mean"].numpy()
    mean = softmax((logits["alpha"] + logits["gamma"]) / 2 / 2, axis=1)
    assert np.abs(other - mean).max() < 1e-6
    assert np.abs(other - found).max() > 1e-2


def test_mse_gets_the_mean_logits(two_teachers: Path, stored: Path) -> None:
    task = task_of(two_teachers, stored, targets=[{"loss": "mse"}] * 2)
    found = task.load(0, SAMPLES).targets["target/mean"].numpy()
    logits = logits_of_clips(task)
    assert np.abs(found - (logits["alpha"] + logits["gamma"]) / 2).max() < 1e-6


@pytest.mark.parametrize("combine", ["per_teacher", "any", "all"])
def test_a_teacher_above_its_threshold_is_left_out_of_the_mean(
    two_teachers: Path, stored: Path, combine: str
) -> None:
    targets = [{"filter": {"max_entropy_nats": 0.6}}, {"filter": {"max_entropy_nats": 1.2}}]
    task = task_of(two_teachers, stored, targets=targets, combine_filters=combine)
    found = task.load(0, SAMPLES).targets
    logits = logits_of_clips(task)
    p = {name: softmax(values.astype(np.float64), axis=1) for name, values in logits.items()}
    entropy = {name: -(q * np.log(q)).sum(axis=1) for name, q in p.items()}
    confident = np.stack([entropy["alpha"] <= 0.6, entropy["gamma"] <= 1.2])
    any_confident, all_confident = confident.any(0), confident.all(0)
    kept = {"any": any_confident, "all": all_confident, "per_teacher": any_confident}[combine]
    share = confident if combine == "per_teacher" else np.stack([kept, kept])
    for i in range(60):
        assert found["weight/mean"][i] == kept[i]
        if kept[i]:
            both = np.stack([logits["alpha"][i], logits["gamma"][i]])
            expected = softmax(both[share[:, i]].mean(axis=0))
            assert np.abs(found["target/mean"][i].numpy() - expected).max() < 1e-6
        else:
            assert not found["target/mean"][i].any()
    assert 0 < kept.sum() < 60
    skipped = task_of(
        two_teachers, stored, targets=targets, combine_filters=combine, skip_filtered=True
    )
    assert set(samples_of(skipped, 0).tolist()) == set(np.flatnonzero(kept).tolist())


def test_the_mean_has_one_head_that_names_all_teachers(two_teachers: Path, stored: Path) -> None:
    task = task_of(two_teachers, stored, targets=[{"weight": 0.5}, {"weight": 0.5}])
    (head,) = task.heads
    fingerprints = {name: task.cache.teachers[name].fingerprint for name in ("alpha", "gamma")}
    assert (head.name, head.outputs, head.mean_of) == ("mean", 7, fingerprints)
    assert head.flipped_clips == "target of the unflipped frame"
    assert task.build().head_names == ("mean",)
    batch = task.load(0, SAMPLES[:5]).targets
    output = torch.randn(5, 7)
    loss, metrics = task.loss({"mean": output}, batch)
    expected = -(batch["target/mean"] * output.log_softmax(1)).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert metrics.keys() == {"loss/mean", "with_target/mean", "kept/mean", "lowest_loss"}


def test_targets_over_different_label_spaces_are_rejected(stored: Path) -> None:
    values = {
        "cache": str(stored / "two"),
        "frames": str(stored / "frames"),
        "out": "unused",
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 4, "crop": 16},
        "targets": [{"teacher": "alpha"}, {"teacher": "beta"}],
        "combine": "mean",
    }
    with pytest.raises(ConfigError, match="cannot be averaged") as caught:
        open_distill_task(DistillConfig.model_validate(values))
    assert "alpha: 7 logits over test-alpha" in str(caught.value.found)
    assert caught.value.remedy is not None
    assert "combine: heads" in caught.value.remedy


def test_the_label_space_depends_on_the_order_of_the_names() -> None:
    identity = sources.teacher_record("alpha", "logits").identity
    names = identity.model_copy(update={"label_names": tuple("abcdefg")})
    swapped = identity.model_copy(update={"label_names": tuple("bacdefg")})
    assert label_space_digest(names) != label_space_digest(swapped)
    assert label_space_digest(names) == label_space_digest(
        names.model_copy(update={"weights_sha256": "other"})
    )


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([{"loss": "kl"}, {}], "one loss, average and temperature"),
        ([{"temperature": 2}, {}], "one loss, average and temperature"),
        ([{"weight": 0}, {}], "weight 0 is not part"),
    ],
)
def test_targets_that_cannot_be_averaged_are_rejected(
    targets: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        DistillConfig.model_validate(
            {"cache": "c", "frames": "f", "out": "o", "combine": "mean", "targets": targets}
        )
