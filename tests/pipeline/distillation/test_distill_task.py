"""The distillation task compared with a plain computation from the teacher outputs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import sources
from scipy.special import log_softmax, softmax

from distinit.pipeline.distillation.task import DistillTask, open_distill_task
from distinit.pipeline.training.epoch_samples import samples_of
from distinit.pipeline.training.sampling import ClipSampler, Purpose, uniforms
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import CacheError, ConfigError, FrameStoreError


def config(stored: Path, cache: str = "one", **changes: Any) -> DistillConfig:
    values = {
        "cache": str(stored / cache),  # an absolute ``cache`` replaces the whole path
        "frames": str(stored / "frames"),
        "out": "unused",
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 4, "crop": 16},
        "optimizer": {"clips_per_epoch": 60},
    }
    return DistillConfig.model_validate(values | changes)


TWO = [{"teacher": "alpha"}, {"teacher": "beta", "pick": "all", "weight": 0.5}]


def expected_batch(
    task: DistillTask, samples: np.ndarray, every: int = 1
) -> list[tuple[str, list[int]]]:
    """(cache video id, frames) of each sample, found by trying every start."""
    cfg = task.config
    counts_V, length = task.videos.frame_count_V, cfg.clip.frames
    choices = ClipSampler(counts_V, cfg.clip, 60, cfg.runtime.seed).choices(0, samples)
    uniform_N = uniforms(cfg.runtime.seed, 0, Purpose.CLIP, samples, 4)[:, 0]
    found = []
    for v, uniform in zip(choices.video_N.tolist(), uniform_N.tolist(), strict=True):
        clips = [
            [f % int(counts_V[v]) for f in range(start, start + length)]
            for start in range(max(1, int(counts_V[v]) - length + 1))
        ]
        allowed = [clip for clip in clips if any(f % every == 0 for f in clip)]
        found.append((task.videos.cache_ids[v], allowed[int(uniform * len(allowed))]))
    return found


def test_a_pickled_task_is_rebuilt_and_loads_the_same_batches(stored: Path) -> None:
    task = open_distill_task(config(stored, "two", targets=TWO))
    assert len(pickle.dumps(task)) < 10_000, "only the configuration is pickled"
    rebuild, arguments = task.__reduce__()
    again = rebuild(*arguments)
    batch, same = task.load(1, np.arange(5)), again.load(1, np.arange(5))
    assert torch.equal(batch.pixels_BTCHW, same.pixels_BTCHW)
    assert batch.targets.keys() == same.targets.keys()
    for name, target in batch.targets.items():
        assert torch.equal(target, same.targets[name]), name


def test_a_task_with_relative_paths_is_rebuilt_in_another_working_folder(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stored)
    relative = config(stored).model_copy(update={"cache": "one", "frames": "frames"})
    rebuild, arguments = open_distill_task(relative).__reduce__()
    monkeypatch.chdir(tmp_path)
    rebuilt = rebuild(*arguments)
    assert (rebuilt.config.cache, rebuilt.config.frames) == (
        str(stored / "one"),
        str(stored / "frames"),
    )


def test_failed_videos_are_left_out_and_matching_is_by_content(stored: Path) -> None:
    task = open_distill_task(config(stored))
    names = sorted(set(sources.FRAMES) - {"bad"}, key=sources.video_id_of)
    assert tuple(task.videos.cache_ids) == tuple(sources.video_id_of(n) for n in names)
    assert tuple(task.videos.store_ids) == tuple(f"store-{n}" for n in names)
    assert task.videos.frame_count_V.tolist() == [sources.FRAMES[n] for n in names]
    assert task.videos.left_out.failed == 1


def test_cached_loss_equals_the_loss_of_running_the_teachers_online(stored: Path) -> None:
    task = open_distill_task(config(stored, "two", targets=TWO))
    samples = np.array([3, 59, 17, 30, 8])
    batch = task.load(0, samples)
    rng = np.random.default_rng(0)
    outputs = {
        n: rng.standard_normal((5, sources.CLASSES[n])).astype(np.float32)
        for n in ("alpha", "beta")
    }
    loss, metrics = task.loss({n: torch.from_numpy(o) for n, o in outputs.items()}, batch.targets)
    picks = ClipSampler([1], task.config.clip, 60, 0).target_uniforms(0, samples).argmin(axis=1)
    alpha, beta = [], []
    for i, (video, frames) in enumerate(expected_batch(task, samples)):
        p = softmax(sources.logits_of(video, "alpha", frames[picks[i]]).astype(np.float64))
        alpha.append(-(p * log_softmax(outputs["alpha"][i].astype(np.float64))).sum())
        mean = np.mean([sources.logits_of(video, "beta", f).astype(np.float64) for f in frames], 0)
        beta.append(-(softmax(mean) * log_softmax(outputs["beta"][i].astype(np.float64))).sum())
    assert metrics["loss/alpha"].item() == pytest.approx(np.mean(alpha), abs=1e-5)
    assert metrics["loss/beta"].item() == pytest.approx(np.mean(beta), abs=1e-5)
    assert loss.item() == pytest.approx(np.mean(alpha) + 0.5 * np.mean(beta), abs=1e-5)
    assert metrics["kept/alpha"].item() == 1
    same = {n: batch.targets[f"target/{n}"].log() for n in ("alpha", "beta")}
    lowest, _ = task.loss(same, batch.targets)
    assert metrics["lowest_loss"].item() == pytest.approx(lowest.item(), abs=1e-5)
    assert 0 < lowest.item() < loss.item()


def test_pixels_are_the_crop_of_the_same_frames_as_the_target(stored: Path) -> None:
    task = open_distill_task(config(stored))
    samples = np.arange(20)
    batch = task.load(0, samples)
    choices = ClipSampler(task.videos.frame_count_V, task.config.clip, 60, 0).choices(0, samples)
    for i, (video, frames) in enumerate(expected_batch(task, samples)):
        place = task.videos.cache_ids.index(video)
        whole = task.store.clip(task.videos.store_ids[place], frames)
        top, left = (int(u * n) for u, n in zip(choices.crop_N2[i], (9, 17), strict=True))
        expected = whole[:, :, top : top + 16, left : left + 16]
        assert torch.equal(batch.pixels_BTCHW[i], expected)
    assert batch.flip_B.tolist() == choices.flip_N.tolist()


def test_targets_come_from_inside_the_clip_if_rows_are_sparse(stored: Path) -> None:
    task = open_distill_task(config(stored, "sparse"))
    samples = np.arange(60)
    batch = task.load(0, samples)
    weights = batch.targets["weight/alpha"].tolist()
    for i, (video, frames) in enumerate(expected_batch(task, samples, every=9)):
        cached = [f for f in frames if f % 9 == 0]
        assert cached
        assert weights[i] == batch.targets["present/alpha"][i] == 1
        target = batch.targets["target/alpha"][i].numpy()
        choices = [softmax(sources.logits_of(video, "alpha", f)) for f in cached]
        assert min(np.abs(target - choice).max() for choice in choices) < 1e-6


def test_the_filter_gives_weight_zero_above_the_threshold(stored: Path) -> None:
    target = {"pick": "center", "filter": {"keep_fraction": 0.4}}
    task = open_distill_task(config(stored, targets=[target]))
    entropies, weights = [], []
    for name in set(sources.FRAMES) - {"bad"}:
        starts = max(1, sources.FRAMES[name] - 3)
        for start in range(starts):
            f = (start + 2) % sources.FRAMES[name]
            p = softmax(sources.logits_of(sources.video_id_of(name), "alpha", f).astype(np.float64))
            entropies.append(-(p * np.log(p)).sum())
            weights.append(1 / starts)
    threshold = np.quantile(entropies, 0.4, weights=weights, method="inverted_cdf")
    assert task.readers[0].threshold_nats == pytest.approx(threshold, abs=1e-5)
    samples = np.arange(60)
    found = task.load(0, samples).targets["weight/alpha"].tolist()
    for weight, (video, frames) in zip(found, expected_batch(task, samples), strict=True):
        p = softmax(sources.logits_of(video, "alpha", frames[2]).astype(np.float64))
        assert weight == float(-(p * np.log(p)).sum() <= threshold + 1e-6)
    assert 0 < sum(found) < 60


@pytest.mark.parametrize("combine", ["any", "all", "per_teacher"])
def test_skipping_keeps_exactly_the_clips_with_a_nonzero_weight(
    stored: Path, combine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distinit.pipeline.training.epoch_samples.JUDGE_BLOCK", 7)
    targets = [
        {"teacher": "alpha", "filter": {"keep_fraction": 0.5}},
        {"teacher": "beta", "pick": "k_random", "k": 2, "filter": {"max_entropy_nats": 0.7}},
    ]
    changes = {"targets": targets, "combine_filters": combine}
    weighted = open_distill_task(config(stored, "two", **changes))
    skipped = open_distill_task(config(stored, "two", **changes, skip_filtered=True))
    order = weighted.order(1)
    batch = weighted.load(1, order).targets
    has_weight = (batch["weight/alpha"] + batch["weight/beta"]).numpy() > 0
    assert samples_of(skipped, 1).tolist() == order[has_weight].tolist()
    assert 0 < has_weight.sum() < 60


def test_a_clip_with_weight_zero_has_no_gradient(stored: Path) -> None:
    target = {"pick": "center", "filter": {"keep_fraction": 0.4}}
    task = open_distill_task(config(stored, targets=[target]))
    batch = task.load(0, np.arange(60))
    output = torch.randn(60, 7, requires_grad=True)
    task.loss({"alpha": output}, batch.targets)[0].backward()
    assert output.grad is not None
    has_gradient = output.grad.abs().sum(dim=1) > 0
    assert torch.equal(has_gradient, batch.targets["weight/alpha"] > 0)


def test_heads_name_teacher_label_space_and_fingerprint(stored: Path) -> None:
    task = open_distill_task(config(stored, "two", targets=TWO))
    heads = [(h.name, h.outputs, h.label_space) for h in task.heads]
    assert heads == [("alpha", 7, "test-alpha"), ("beta", 5, "test-beta")]
    assert task.heads[0].teacher_fingerprint == task.cache.teachers["alpha"].fingerprint
    assert task.build().head_names == ("alpha", "beta")


def test_features_need_a_regression_loss_and_no_filter(stored: Path) -> None:
    task = open_distill_task(config(stored, "features", targets=[{"loss": "mse"}]))
    batch = task.load(0, np.arange(4))
    assert batch.targets["target/alpha"].abs().max() > 1
    with pytest.raises(ConfigError, match="not a distribution"):
        open_distill_task(config(stored, "features", targets=[{"loss": "kl"}]))
    filtered = [{"loss": "mse", "filter": {"keep_fraction": 0.5}}]
    with pytest.raises(ConfigError, match="no entropy"):
        open_distill_task(config(stored, "features", targets=filtered))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": [{"teacher": "gamma"}]}, 'no teacher "gamma"'),
        ({"cache": "two"}, "several teachers"),
        ({"cache": "two", "targets": [{"teacher": "beta"}] * 2}, "the same teacher"),
        ({"targets": [{"pick": "k_random", "k": 5}]}, "more frames than a clip"),
        ({"clip": {"crop": 25}}, "smaller than the crop"),
        ({"student": {"name": "r3d_18", "in_channels": 2}}, "does not read what the frame store"),
        ({"clip": {"frames": 4, "crop": 16, "mean": [0.5], "std": [0.2]}}, "mean and std"),
    ],
)
def test_mistakes_in_the_configuration_are_reported_before_training(
    stored: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, CacheError, FrameStoreError), match=message):
        open_distill_task(config(stored, **changes))


def test_videos_missing_from_the_store_or_of_another_length_are_left_out(
    stored: Path, tmp_path: Path
) -> None:
    good = {name: count for name, count in sources.FRAMES.items() if name != "bad"}
    sources.write_frames(tmp_path, {n: c for n, c in good.items() if n != "c"} | {"a": 11})
    task = open_distill_task(config(stored, frames=str(tmp_path)))
    assert sorted(task.videos.store_ids) == ["store-b", "store-d", "store-short"]
    assert (task.load(0, np.arange(60)).targets["weight/alpha"] == 1).all()


def test_the_loss_is_the_mean_over_clips_with_a_target(stored: Path) -> None:
    task = open_distill_task(config(stored, targets=[{"pick": "center"}]))
    targets = dict(task.load(0, np.arange(8)).targets)
    outputs = {"alpha": torch.randn(8, 7, generator=torch.Generator().manual_seed(0))}
    whole, metrics = task.loss(outputs, targets)
    assert (metrics["with_target/alpha"].item(), metrics["kept/alpha"].item()) == (1, 1)
    # If the last six clips had no target, the loss would be that of the first two.
    for name in ("target", "weight", "present"):
        targets[f"{name}/alpha"] = targets[f"{name}/alpha"].clone()
        targets[f"{name}/alpha"][2:] = 0
    few, metrics = task.loss(outputs, targets)
    first = {name: tensor[:2] for name, tensor in targets.items()}
    assert few.item() == pytest.approx(task.loss({"alpha": outputs["alpha"][:2]}, first)[0].item())
    assert (metrics["with_target/alpha"].item(), metrics["kept/alpha"].item()) == (0.25, 0.25)
    assert whole.item() != few.item()


def test_flipped_clips_get_the_targets_of_mirrored_frames(stored: Path, tmp_path: Path) -> None:
    sources.write_cache(tmp_path / "cache", ("alpha", "alpha-flip"))
    cache = str(tmp_path / "cache")
    target = {"teacher": "alpha", "pick": "center", "loss": "mse"}
    paired = config(stored, cache=cache, targets=[target | {"flipped_teacher": "alpha-flip"}])
    task = open_distill_task(paired)
    samples = np.arange(60)
    found = task.load(0, samples)
    for i, (video, frames) in enumerate(expected_batch(task, samples)):
        name = "alpha-flip" if found.flip_B[i] else "alpha"
        expected = sources.logits_of(video, name, frames[2])
        assert np.array_equal(found.targets["target/alpha"][i].numpy(), expected)
    assert 10 < int(found.flip_B.sum()) < 50
    assert task.heads[0].flipped_clips == "target of the flipped frame"
    assert task.teachers == {
        name: task.cache.teachers[name].fingerprint for name in ("alpha", "alpha-flip")
    }
    plain = open_distill_task(config(stored, cache=cache, targets=[target]))
    assert plain.heads[0].flipped_clips == "target of the unflipped frame"
    unflipped = {"frames": 4, "crop": 16, "flip": 0}
    never = open_distill_task(config(stored, cache=cache, targets=[target], clip=unflipped))
    assert never.heads[0].flipped_clips is None
    # The mirrored teacher is not a candidate, so the other teacher need not be named.
    alone = config(stored, cache=cache, targets=[{"flipped_teacher": "alpha-flip"}])
    assert open_distill_task(alone).readers[0].teacher.id == "alpha"


def test_mirrored_targets_of_another_teacher_are_rejected(stored: Path, tmp_path: Path) -> None:
    sources.write_cache(tmp_path / "cache", ("alpha", "gamma", "alpha-flip"))
    for teacher, mirror in (("gamma", "alpha-flip"), ("alpha", "gamma"), ("alpha-flip", "alpha")):
        target = {"teacher": teacher, "flipped_teacher": mirror}
        with pytest.raises(ConfigError, match="over mirrored frames"):
            open_distill_task(config(stored, cache=str(tmp_path / "cache"), targets=[target]))


def test_a_cache_with_only_mirrored_targets_is_rejected(stored: Path, tmp_path: Path) -> None:
    sources.write_cache(tmp_path / "cache", ("alpha-flip",))
    targets = [{"flipped_teacher": "alpha-flip"}]
    with pytest.raises(ConfigError, match="only teacher of the cache, alpha-flip"):
        open_distill_task(config(stored, cache=str(tmp_path / "cache"), targets=targets))
