"""Distillation from stored features, through the logits of a vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import sources
from helpers.vocabularies import make_vocabulary
from numpy.typing import NDArray

from distinit.pipeline.cache.confidence import confidence_of
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.distillation.task import DistillTask, open_distill_task
from distinit.pipeline.progress import NullProgress
from distinit.pipeline.vocabulary.targets import VocabularyTargets
from distinit.schemas.distill import DistillConfig, TargetConfig
from distinit.schemas.errors import ConfigError, VocabularyError
from distinit.stages.cache_relabel import cache_relabel


def config(stored: Path, targets: list[dict[str, Any]], **changes: Any) -> DistillConfig:
    values = {
        "cache": str(stored / "features"),
        "frames": str(stored / "frames"),
        "out": "unused",
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 4, "crop": 16},
        "optimizer": {"clips_per_epoch": 60},
        "targets": targets,
    }
    return DistillConfig.model_validate(values | changes)


@pytest.fixture
def birds(tmp_path: Path) -> str:
    make_vocabulary(tmp_path / "birds.safetensors", 7, scale=8.0)
    return str(tmp_path / "birds.safetensors")


def assert_same_batches(one: DistillTask, other: DistillTask) -> None:
    samples_B = np.arange(60)
    ours, theirs = one.look_up(1, samples_B), other.look_up(1, samples_B)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert torch.allclose(values, theirs[name], atol=2e-3), name


@pytest.mark.parametrize(
    "target",
    [
        {},
        {"pick": "all", "average": "probabilities", "temperature": 2.0},
        {"pick": "uniform", "k": 2, "loss": "kl"},
        {"filter": {"max_entropy_nats": 1.0}},
        {"filter": {"keep_fraction": 0.4}, "pick": "all"},
    ],
)
def test_it_is_the_distillation_of_the_relabelled_cache(
    stored: Path, birds: str, tmp_path: Path, target: dict[str, Any]
) -> None:
    cache_relabel(stored / "features", tmp_path / "logits", [Path(birds)], progress=NullProgress())
    direct = open_distill_task(config(stored, [{**target, "vocabulary": birds}]))
    expected = open_distill_task(config(stored, [target], cache=str(tmp_path / "logits")))
    assert_same_batches(direct, expected)
    assert direct.heads == expected.heads
    assert direct.heads[0].name == "alpha@birds"
    assert (direct.heads[0].outputs, direct.build().heads["alpha@birds"].out_features) == (4, 4)
    ours, theirs = (task.thresholds.teachers for task in (direct, expected))
    assert ours.keys() == theirs.keys()
    for name, record in ours.items():
        assert record.threshold_nats == pytest.approx(theirs[name].threshold_nats, abs=1e-3)
        assert record.kept == theirs[name].kept
    kept_B = direct.keeps(0, np.arange(60))
    assert np.array_equal(kept_B, expected.keeps(0, np.arange(60)))


def test_two_vocabularies_and_the_features_themselves_are_three_heads(
    stored: Path, birds: str, tmp_path: Path
) -> None:
    make_vocabulary(tmp_path / "tools.safetensors", 7, names=6, seed=1)
    tools = str(tmp_path / "tools.safetensors")
    task = open_distill_task(
        config(
            stored,
            [
                {"teacher": "alpha", "vocabulary": birds},
                {"teacher": "alpha", "vocabulary": tools, "weight": 0.5},
                {"teacher": "alpha", "loss": "mse"},
            ],
        )
    )
    assert [(head.name, head.outputs) for head in task.heads] == [
        ("alpha@birds", 4),
        ("alpha@tools", 6),
        ("alpha", 7),
    ]
    assert sorted(task.teachers) == ["alpha"]
    assert sorted(task.vocabularies) == ["alpha@birds", "alpha@tools"]
    targets = task.look_up(0, np.arange(8))
    outputs = {head.name: torch.zeros(8, head.outputs) for head in task.heads}
    _, metrics = task.loss(outputs, targets)
    assert {"loss/alpha@birds", "loss/alpha@tools", "loss/alpha"} <= metrics.keys()
    with pytest.raises(ConfigError, match="two targets name the same teacher"):
        open_distill_task(config(stored, [{"vocabulary": birds}, {"vocabulary": birds}]))


def test_entropies_are_computed_once_and_are_those_of_the_logits(
    stored: Path, birds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cache = TargetCache.open(stored / "features")
    vocabulary = make_vocabulary(tmp_path / "birds.safetensors", 7, scale=8.0)
    targets = VocabularyTargets(cache, cache.teachers["alpha"], vocabulary)
    rows_N = np.flatnonzero(np.asarray(cache.index.video_number) >= 0)
    entropy_nats = targets.entropy_nats
    assert entropy_nats.shape == cache.index.video_number.shape
    assert np.array_equal(entropy_nats[rows_N], confidence_of(targets.logits(rows_N)).entropy_nats)
    assert np.isnan(np.delete(entropy_nats, rows_N)).all()
    rebuild, arguments = targets.__reduce__()
    again = rebuild(*arguments)
    monkeypatch.setattr(VocabularyTargets, "_write_entropies", None)  # it would be called
    assert np.array_equal(again.entropy_nats, entropy_nats, equal_nan=True)


def test_a_task_is_rebuilt_in_another_working_folder(
    stored: Path, birds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(birds).parent)
    task = open_distill_task(config(stored, [{"vocabulary": "birds.safetensors"}]))
    rebuild, arguments = task.__reduce__()
    monkeypatch.chdir(stored)
    rebuilt = rebuild(*arguments)
    assert rebuilt.config.targets[0].vocabulary == birds
    assert_same_batches(task, rebuilt)


def test_settings_without_a_vocabulary_are_written_as_before(birds: str) -> None:
    assert "vocabulary" not in TargetConfig().model_dump()
    assert TargetConfig(vocabulary=birds).model_dump()["vocabulary"] == birds


def test_unusable_vocabularies_are_refused(stored: Path, tmp_path: Path, birds: str) -> None:
    make_vocabulary(tmp_path / "wide.safetensors", 8)
    with pytest.raises(VocabularyError, match="does not fit teacher alpha"):
        open_distill_task(config(stored, [{"vocabulary": str(tmp_path / "wide.safetensors")}]))
    with pytest.raises(VocabularyError, match="nothing at that path"):
        open_distill_task(config(stored, [{"vocabulary": str(tmp_path / "none.safetensors")}]))
    with pytest.raises(ConfigError, match="teacher alpha stores logits") as caught:
        open_distill_task(config(stored, [{"vocabulary": birds}], cache=str(stored / "one")))
    assert caught.value.remedy == "extract features: `distinit extract --target features`"


def test_a_vocabulary_is_for_the_only_teacher_of_features(stored: Path, tmp_path: Path) -> None:
    def values(video_id: str, teacher: str, frame: int) -> NDArray[np.float32]:
        count = sources.CLASSES[teacher]
        return np.cos(np.arange(count) * (frame + 1)).astype(np.float32)

    cache, birds = tmp_path / "cache", tmp_path / "birds.safetensors"
    teachers = {"alpha": "logits", "small": "features"}
    sources.write_cache(cache, ("alpha", "small"), targets=teachers, logits_of=values)
    make_vocabulary(birds, sources.CLASSES["small"])
    task = open_distill_task(config(stored, [{"vocabulary": str(birds)}], cache=str(cache)))
    assert [head.name for head in task.heads] == ["small@birds"]
    sources.write_cache(tmp_path / "two", ("small", "large"), target="features", logits_of=values)
    with pytest.raises(ConfigError, match=r"--set targets\.0\.teacher=large"):
        open_distill_task(config(stored, [{"vocabulary": str(birds)}], cache=str(tmp_path / "two")))
