"""The ready-made configurations are valid and have the paper's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from distinit.pipeline.config import build_config
from distinit.schemas.distill import DistillConfig
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.training import FLOW_PIXELS, OptimizerConfig

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(
    path.relative_to(CONFIGS).with_suffix("").as_posix()
    for path in CONFIGS.rglob("*.yaml")
    if any(stage in path.stem for stage in ("distill", "finetune", "scratch"))
)
PLACES = {"cache": "c", "frames": "f", "out": "o"}
PAPER = OptimizerConfig(
    learning_rate=0.01,
    epochs=45,
    step_epochs=10,
    gamma=0.1,
    clips_per_epoch=1_000_000,
    weight_decay=1e-4,
)


def distillation(name: str) -> DistillConfig:
    return build_config(DistillConfig, CONFIGS / f"{name}.yaml", (), PLACES)


@pytest.mark.parametrize("name", FILES)
def test_every_configuration_loads(name: str) -> None:
    if "distill" in name:
        assert distillation(name).runtime.batch_size >= 1
    else:
        given = {"dataset.root": "d", "out": "o", "init": "scratch"}
        file = CONFIGS / f"{name}.yaml"
        assert build_config(FinetuneConfig, file, (), given).evaluation.protocol == "vmz-10"


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("paper/distill")])
def test_distillation_follows_the_papers_schedule(name: str) -> None:
    config = distillation(name)
    rate = 0.001 if name.endswith("mse") else 0.01
    assert config.optimizer == PAPER.model_copy(update={"learning_rate": rate})
    assert (config.clip.frames, config.clip.crop, config.clip.flip) == (8, 112, 0.5)
    assert config.student.name == "vmz_r2plus1d_18"
    assert config.runtime.shards == config.runtime.workers == 4


def test_configurations_have_the_settings_they_are_named_after() -> None:
    picks = {name: distillation(f"paper/distill_{name}").targets for name in ("mse", "k_random")}
    assert [(t.loss, t.pick) for t in picks["mse"]] == [("mse", "center")]
    assert [(t.pick, t.k, t.average) for t in picks["k_random"]] == [("k_random", 2, "logits")]
    two = distillation("paper/distill_two_teachers")
    assert [t.teacher for t in two.targets] == ["imagenet", "places"]
    assert two.combine == "heads"
    flow = distillation("paper/distill_flow")
    assert flow.student.in_channels == 2
    assert {"mean": flow.clip.mean, "std": flow.clip.std} == FLOW_PIXELS
    assert flow.clip.flow_range == 20
