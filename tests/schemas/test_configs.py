"""Configurations: defaults, what depends on other keys, and what is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from distinit.schemas.base import canonical_json
from distinit.schemas.distill import DistillConfig, FilterConfig, TargetConfig
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.figures import FiltersConfig
from distinit.schemas.finetune import EvaluationConfig, FinetuneConfig
from distinit.schemas.reproduce import ReproduceConfig
from distinit.schemas.teacher import TeacherRequest, parse_encoding
from distinit.schemas.training import OptimizerConfig, RuntimeConfig
from distinit.schemas.video import SamplingConfig


def test_the_paper_protocol_is_the_default() -> None:
    config = DistillConfig(cache="c", frames="f", out="o")
    assert (config.clip.frames, config.clip.crop) == (8, 112)
    assert (config.optimizer.learning_rate, config.optimizer.epochs) == (0.01, 45)
    assert (config.optimizer.step_epochs, config.optimizer.gamma) == (10, 0.1)
    assert config.targets[0].pick == "random"
    assert config.targets[0].loss == "auto"  # cross_entropy for logits


@pytest.mark.parametrize(
    ("optimizer", "distilled", "scratch", "pretrained"),
    [
        ({}, (45, 10), (45, 10), (32, 8)),
        ({"epochs": 8}, (8, 2), (8, 2), (8, 2)),  # the paper's finetuning: x.1 every 2 of 8
        ({"epochs": 45}, (45, 10), (45, 10), (45, 12)),
        ({"epochs": 1}, (1, 1), (1, 1), (1, 1)),
        ({"epochs": 100, "step_epochs": 30}, (100, 30), (100, 30), (100, 30)),
        # Unused by other schedules: as earlier versions recorded it.
        ({"epochs": 20, "schedule": "cosine"}, (20, 10), (20, 10), (20, 2)),
    ],
)
def test_the_decays_of_the_learning_rate_follow_the_number_of_epochs(
    optimizer: dict[str, object],
    distilled: tuple[int, int],
    scratch: tuple[int, int],
    pretrained: tuple[int, int],
) -> None:
    values = {"dataset": {"root": "d"}, "out": "o", "optimizer": optimizer}
    inputs = {"cache": "c", "frames": "f", "out": "o"}
    found = DistillConfig.model_validate({**inputs, "optimizer": optimizer}).optimizer
    assert (found.epochs, found.step_epochs) == distilled
    for init, expected in (("scratch", scratch), ("distinit:r", pretrained)):
        found = FinetuneConfig.model_validate({**values, "init": init}).optimizer
        assert (found.epochs, found.step_epochs) == expected
        assert found.clips_per_epoch == "auto"
        assert found.warmup_epochs == 0


@pytest.mark.parametrize(
    ("clips", "runtime", "size"),
    [
        ("auto", {}, 32),
        (None, {}, 32),
        (1000, {}, 32),
        (20, {}, 20),
        (20, {"shards": 4}, 5),
        (20, {"batch_size": 7}, 7),
        (3, {"shards": 4}, 1),
    ],
)
def test_a_batch_is_by_default_not_larger_than_the_epoch(
    clips: object, runtime: dict[str, int], size: int
) -> None:
    parts = {"optimizer": {"clips_per_epoch": clips}, "runtime": runtime}
    distill = {"cache": "c", "frames": "f", "out": "o"}
    finetune = {"dataset": {"root": "d"}, "out": "o"}
    assert DistillConfig.model_validate(distill | parts).runtime.batch_size == size
    assert FinetuneConfig.model_validate(finetune | parts).runtime.batch_size == size


@pytest.mark.parametrize("rate", ["nan", "inf", 0, -1])
def test_a_learning_rate_is_a_finite_number_above_0(rate: object) -> None:
    with pytest.raises(ValidationError, match="learning_rate"):
        OptimizerConfig.model_validate({"learning_rate": rate})


@pytest.mark.parametrize(
    ("max_failed", "allowed"),
    [
        # Of 1, 2, 3, 7, 10, 60, 100 and 10,000 videos.
        ("auto", [0, 0, 1, 2, 3, 3, 5, 500]),
        (0.05, [0, 0, 0, 0, 0, 3, 5, 500]),  # a given share is exact
        (0.29, [0, 0, 0, 2, 2, 17, 29, 2900]),
        (0.0, [0, 0, 0, 0, 0, 0, 0, 0]),
        (1.0, [1, 2, 3, 7, 10, 60, 100, 10_000]),
    ],
)
def test_a_few_videos_may_fail_but_never_most(max_failed: object, allowed: list[int]) -> None:
    values = {"videos": "v", "teachers": [{"name": "null"}], "cache": "c", "max_failed": max_failed}
    config = ExtractConfig.model_validate(values)
    assert [config.allowed_failures(n) for n in (1, 2, 3, 7, 10, 60, 100, 10_000)] == allowed


def test_canonical_json_does_not_depend_on_order() -> None:
    assert canonical_json({"b": 1, "a": [1, 2]}) == canonical_json({"a": [1, 2], "b": 1})
    assert canonical_json({"a": 1}) == '{"a":1}'


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("float16", ("float16", 0)), ("int8", ("int8", 0)), ("topk:32", ("topk", 32))],
)
def test_encodings_parse(text: str, parsed: tuple[str, int]) -> None:
    assert parse_encoding(text) == parsed


@pytest.mark.parametrize("text", ["topk:0", "topk", "float32", "topk:-1", "INT8"])
def test_unknown_encodings_are_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="none of float16, int8, topk:K"):
        TeacherRequest(name="null", encoding=text)


@pytest.mark.parametrize("bad", ["../x", "", ".hidden", "a/b", "a b"])
def test_a_teacher_id_cannot_leave_its_folder(bad: str) -> None:
    with pytest.raises(ValidationError, match="teacher id"):
        TeacherRequest(name="null", id=bad)


@pytest.mark.parametrize("bad", ["vmz-0", "vmz", "dense-4", "dense-s0", "ten-crop"])
def test_unknown_protocols_are_refused(bad: str) -> None:
    with pytest.raises(ValidationError):
        EvaluationConfig(protocol=bad)


def test_two_thresholds_at_once_are_refused() -> None:
    with pytest.raises(ValidationError, match="not both"):
        FilterConfig(max_entropy_nats=1.0, keep_fraction=0.5)


def test_a_sampling_mode_needs_its_value() -> None:
    with pytest.raises(ValidationError, match="needs a value for fps"):
        SamplingConfig(mode="fps")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "all frames"),
        ({"mode": "stride", "stride": 4}, "stride 4"),
        ({"mode": "fps", "fps": 2.0}, "at most 2 a second"),
        ({"mode": "per_video", "per_video": 8}, "8 a video"),
    ],
)
def test_a_sampling_has_a_short_description(values: dict[str, object], text: str) -> None:
    assert str(SamplingConfig.model_validate(values)) == text


@pytest.mark.parametrize("init", ["scratch", "distinit:r"])
def test_adamw_needs_a_learning_rate_of_its_own(init: str) -> None:
    values = {"dataset": {"root": "d"}, "init": init, "out": "o"}
    for optimizer in ({"name": "adamw"}, {"name": "adamw", "epochs": 3}):
        with pytest.raises(ValidationError, match="adamw needs a learning_rate"):
            FinetuneConfig.model_validate({**values, "optimizer": optimizer})
        with pytest.raises(ValidationError, match="adamw needs a learning_rate"):
            OptimizerConfig.model_validate(optimizer)
    given = {"name": "adamw", "learning_rate": 1e-4}
    config = FinetuneConfig.model_validate({**values, "optimizer": given})
    assert (config.optimizer.name, config.optimizer.learning_rate) == ("adamw", 1e-4)
    assert config.optimizer.clips_per_epoch == "auto"
    assert FinetuneConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    "change", [{"betas": (0.9, 1.0)}, {"betas": (-0.1, 0.9)}, {"betas": (0.9,)}, {"eps": 0}]
)
def test_values_of_adamw_outside_their_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        OptimizerConfig.model_validate({"name": "adamw", "learning_rate": 1e-4, **change})


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
def test_seeds_that_the_generators_do_not_accept_are_refused(seed: int) -> None:
    """torch accepts seeds below 2**64, scikit-learn below 2**32."""
    for config in (RuntimeConfig, FiltersConfig, ReproduceConfig):
        name, value = ("seeds", (seed,)) if config is ReproduceConfig else ("seed", seed)
        with pytest.raises(ValidationError) as caught:
            config.model_validate({name: value})
        assert name in {error["loc"][0] for error in caught.value.errors()}
    assert RuntimeConfig(seed=2**32 - 1).seed == 2**32 - 1


def test_keys_added_for_features_leave_old_configurations_as_they_were() -> None:
    old = {"teacher", "flipped_teacher", "pick", "k", "average", "temperature", "loss", "weight"}
    plain = TargetConfig(loss="mse").model_dump(mode="json")
    assert plain.keys() == old | {"filter"}
    stated = TargetConfig(loss="mse", normalize="none").model_dump(mode="json")
    assert stated == plain
    kept = TargetConfig(normalize="none", smooth_l1_beta=2).model_dump(mode="json")
    assert (kept["normalize"], kept["smooth_l1_beta"]) == ("none", 2)
    assert TargetConfig(loss="mse", normalize="phi_s").model_dump()["normalize"] == "phi_s"
