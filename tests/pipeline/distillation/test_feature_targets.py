"""Teachers of features: balance of their losses, defaults, and a logit teacher beside them."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import sources
from numpy.typing import NDArray

from distinit.pipeline.distillation.task import DistillTask, open_distill_task
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError

SCALES = {"small": 1.0, "large": 100.0}
GRID_SCALE = 10.0
CHANNELS = 24


def features_of(video_id: str, teacher: str, frame: int) -> NDArray[np.float32]:
    """Correlated features with unequal variances and a mean, of scale 1 and 100, as float16."""
    mixing_rng = np.random.default_rng(len(teacher) + ord(teacher[0]))
    mixing = mixing_rng.standard_normal((CHANNELS, CHANNELS)) * mixing_rng.uniform(0.2, 2, CHANNELS)
    key = hashlib.sha256(f"{video_id}/{teacher}/{frame}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(key[:8], "little"))
    values = (mixing @ rng.standard_normal(CHANNELS) / 5 + 1) * SCALES.get(teacher, GRID_SCALE)
    return values.astype(np.float16).astype(np.float32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two teachers of features, of scale 1 and of scale 100."""
    root = tmp_path_factory.mktemp("scales") / "cache"
    sources.write_cache(root, ("small", "large"), target="features", logits_of=features_of)
    return root


def task_of(stored: Path, cache: Path, targets: list[dict[str, Any]], **more: Any) -> DistillTask:
    values = {
        "cache": str(cache),
        "frames": str(stored / "frames"),
        "out": "unused",
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 4, "crop": 16},
        "optimizer": {"clips_per_epoch": 128},
        "targets": targets,
    }
    return open_distill_task(DistillConfig.model_validate(values | more))


def gradient_shares(task: DistillTask) -> dict[str, float]:
    """Each head's share of the gradient norms at the feature that all heads read."""
    batch = task.load(0, task.order(0))
    student = task.build()
    pixels = batch.pixels_BTCHW.float().transpose(1, 2) / 255
    feature_BF = student.backbone(pixels).detach().requires_grad_()
    norms = {}
    for reader in task.readers:
        name = reader.teacher.id
        output = student.heads[name](feature_BF)
        outputs = {name: output, **{n: torch.zeros_like(output) for n in SCALES if n != name}}
        loss, _ = task.loss(outputs, batch.targets)
        (gradient,) = torch.autograd.grad(loss, feature_BF)
        norms[name] = gradient.norm().item()
    return {name: norm / sum(norms.values()) for name, norm in norms.items()}


@pytest.mark.parametrize("loss", ["mse", "smooth_l1", "cosine+mse", "cosine+smooth_l1", "cosine"])
@pytest.mark.parametrize("normalize", ["standardize", "phi_s"])
def test_normalized_teachers_of_different_scales_contribute_equally(
    stored: Path, cache: Path, loss: str, normalize: str
) -> None:
    targets = [{"teacher": t, "loss": loss, "normalize": normalize} for t in SCALES]
    shares = gradient_shares(task_of(stored, cache, targets))
    assert shares["small"] == pytest.approx(0.5, rel=0.1)
    assert shares["large"] == pytest.approx(0.5, rel=0.1)


def test_without_normalization_the_larger_scale_takes_over_the_loss(
    stored: Path, cache: Path
) -> None:
    targets = [{"teacher": t, "loss": "mse", "normalize": "none"} for t in SCALES]
    shares = gradient_shares(task_of(stored, cache, targets))
    assert shares["large"] > 0.98
    task = task_of(stored, cache, targets)
    batch = task.load(0, task.order(0))
    zeros = {name: torch.zeros(128, CHANNELS) for name in SCALES}
    _, metrics = task.loss(zeros, batch.targets)
    assert metrics["loss/large"] > 1000 * metrics["loss/small"]


def test_features_are_normalized_by_phi_s_unless_a_loss_is_named(stored: Path, cache: Path) -> None:
    task = task_of(stored, cache, [{"teacher": "small"}, {"teacher": "large", "loss": "cosine"}])
    small, large = task.config.targets
    assert (small.loss, small.normalize) == ("cosine+smooth_l1", "phi_s")
    assert (large.loss, large.normalize) == ("cosine", "none")
    assert [head.normalize for head in task.heads] == ["phi_s", None]
    assert task.normalizations.keys() == {"small"}
    target = task.load(0, task.order(0)).targets["target/small"]
    assert target.shape == (128, CHANNELS)
    assert target.square().mean().item() == pytest.approx(1, rel=0.15)


def test_targets_are_the_normalized_mean_of_the_frames_and_can_be_undone(
    stored: Path, cache: Path
) -> None:
    plain = {"teacher": "large", "pick": "all", "loss": "mse"}
    raw = task_of(stored, cache, [plain])
    normal = task_of(stored, cache, [plain | {"normalize": "phi_s"}])
    samples = np.arange(20)
    expected = raw.load(0, samples).targets["target/large"]
    found = normal.load(0, samples).targets["target/large"]
    undone = normal.normalizations["large"].undo(found)
    assert not torch.allclose(found, expected)
    assert torch.allclose(undone, expected, rtol=1e-4, atol=0.02)


def test_a_pickled_task_keeps_its_normalization(stored: Path, cache: Path) -> None:
    task = task_of(stored, cache, [{"teacher": "small"}])
    again = pickle.loads(pickle.dumps(task))  # noqa: S301  our own bytes
    assert again.normalizations["small"].digest == task.normalizations["small"].digest
    assert again.config == task.config
    samples = np.arange(5)
    name = "target/small"
    assert torch.equal(again.load(0, samples).targets[name], task.load(0, samples).targets[name])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of logits and one of features in one cache."""
    root = tmp_path_factory.mktemp("mixed") / "cache"
    sources.write_cache(
        root,
        ("alpha", "small"),
        targets={"alpha": "logits", "small": "features"},
        logits_of=lambda video, teacher, frame: (
            features_of if teacher == "small" else sources.logits_of
        )(video, teacher, frame),
    )
    return root


MIXED: list[dict[str, Any]] = [
    {"teacher": "alpha", "filter": {"keep_fraction": 0.5}},
    {"teacher": "small"},
]


@pytest.mark.parametrize("combine", ["any", "all"])
def test_features_follow_the_filter_of_the_logits(stored: Path, mixed: Path, combine: str) -> None:
    task = task_of(stored, mixed, MIXED, combine_filters=combine)
    targets = task.load(0, task.order(0)).targets
    assert torch.equal(targets["weight/alpha"], targets["weight/small"])
    assert 0 < targets["weight/small"].sum() < 128
    skipped = task_of(stored, mixed, MIXED, combine_filters=combine, skip_filtered=True)
    kept = skipped.keeps(0, task.order(0))
    assert np.array_equal(kept, targets["weight/alpha"].numpy() > 0)


def test_features_keep_all_clips_if_filters_hold_for_each_teacher(
    stored: Path, mixed: Path
) -> None:
    task = task_of(stored, mixed, MIXED)
    targets = task.load(0, task.order(0)).targets
    assert 0 < targets["weight/alpha"].sum() < 128
    assert targets["weight/small"].sum() == 128
    assert task.keeps(0, task.order(0)).all()


def test_logits_and_features_have_a_loss_each_and_one_lowest_loss(
    stored: Path, mixed: Path
) -> None:
    task = task_of(stored, mixed, [{"teacher": "alpha"}, {"teacher": "small", "weight": 0.5}])
    targets = task.load(0, task.order(0)).targets
    best = {"alpha": targets["target/alpha"].log(), "small": targets["target/small"]}
    lowest, metrics = task.loss(best, targets)
    assert metrics["loss/small"].item() == pytest.approx(0, abs=1e-6)
    assert metrics["lowest_loss"].item() == pytest.approx(lowest.item(), abs=1e-5)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in best.items()}
    total, metrics = task.loss(zeros, targets)
    expected = metrics["loss/alpha"] + 0.5 * metrics["loss/small"]
    assert total.item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"teacher": "alpha", "normalize": "phi_s"}, "logits, which are not normalized"),
        ({"teacher": "small", "loss": "kl"}, "not a distribution"),
        ({"teacher": "small", "temperature": 2}, "average logits and temperature 1"),
        ({"teacher": "small", "average": "probabilities"}, "average logits and temperature 1"),
        ({"teacher": "small", "filter": {"keep_fraction": 0.5}}, "filter each teacher of logits"),
        ({"teacher": "small", "filter": {"max_entropy_nats": 1}}, "no entropy to filter by"),
    ],
)
def test_settings_that_do_not_fit_the_teacher_are_refused(
    stored: Path, mixed: Path, target: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        task_of(stored, mixed, [target])
    assert message in str(caught.value)


def test_features_have_no_part_in_a_mean(stored: Path, mixed: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be averaged"):
        task_of(stored, mixed, [{"teacher": "alpha"}, {"teacher": "small"}], combine="mean")


def test_a_grid_is_normalized_and_compared_cell_by_cell(stored: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    sources.write_cache(cache, ("grid",), target="features", logits_of=features_of)
    task = task_of(stored, cache, [{"teacher": "grid", "loss": "cosine", "normalize": "phi_s"}])
    assert task.normalizations["grid"].channels == 6
    (head,) = task.heads
    assert (head.outputs, head.cells, head.normalize) == (CHANNELS, 4, "phi_s")
    targets = task.load(0, task.order(0)).targets
    target_BF = targets["target/grid"]
    one_cell_turned = target_BF.clone()
    one_cell_turned[:, :6] *= -1
    loss, _ = task.loss({"grid": one_cell_turned}, targets)
    assert loss.item() == pytest.approx(2 / 4)  # 2 in one of four cells


@pytest.mark.parametrize("normalize", ["phi_s", "standardize"])
def test_features_that_are_all_equal_are_refused(
    stored: Path, tmp_path: Path, normalize: str
) -> None:
    def equal(video_id: str, teacher: str, frame: int) -> NDArray[np.float32]:
        return np.full(24, 0.5, np.float32)

    sources.write_cache(tmp_path / "cache", ("small",), target="features", logits_of=equal)
    with pytest.raises(ConfigError, match="all features of teacher small are equal"):
        task_of(stored, tmp_path / "cache", [{"teacher": "small", "normalize": normalize}])
