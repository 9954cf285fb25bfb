"""The ready-made configurations are valid and have the paper's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distinit.pipeline.config import build_config, read_yaml
from distinit.pipeline.students.registry import check_clip
from distinit.pipeline.training.schedule import learning_rate
from distinit.schemas.distill import DistillConfig
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.training import FLOW_PIXELS, OptimizerConfig, RuntimeConfig

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


PER_CLIP = {"distill": 0.01 / 32, "finetune": 0.002 / 32, "scratch": 0.01 / 32}
"""Learning rate per clip of a step: what the variants for 1, 4 and 8 GPUs have in common."""
GPUS = ("1gpu", "4gpu", "8gpu")


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


def training(name: str) -> DistillConfig | FinetuneConfig:
    if "distill" in name:
        return distillation(name)
    init = "scratch" if "scratch" in name else "distinit:r"
    given = {"dataset.root": "d", "out": "o", "init": init}
    return build_config(FinetuneConfig, CONFIGS / f"{name}.yaml", (), given)


SCHEDULES = {
    "distill": (45, 10, 1_000_000),
    "finetune": (8, 2, 40_000),
    "scratch": (45, 10, 40_000),
}
"""The paper's epochs, epochs between decays, and clips per epoch."""


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(("paper/", "gpus/"))])
def test_the_papers_configurations_state_its_scale_and_do_not_follow_the_corpus(name: str) -> None:
    optimizer = training(name).optimizer
    kind = next(kind for kind in SCHEDULES if kind in name)
    found = (optimizer.epochs, optimizer.step_epochs, optimizer.clips_per_epoch)
    assert found == SCHEDULES[kind]
    assert {"epochs", "step_epochs", "clips_per_epoch"} <= set(stated(name)["optimizer"])
    assert "batch_size" in stated(name)["runtime"]


@pytest.mark.parametrize("name", FILES)
def test_every_configuration_states_its_clips_and_its_batch(name: str) -> None:
    assert {"epochs", "clips_per_epoch"} <= set(stated(name)["optimizer"])
    assert training(name).runtime.batch_size == stated(name)["runtime"]["batch_size"]


def stated(name: str) -> dict[str, Any]:
    """What the file itself says."""
    return read_yaml(CONFIGS / f"{name}.yaml")


def first_rate_and_batch(config: DistillConfig | FinetuneConfig) -> tuple[float, int]:
    """The learning rate of the first step, as the trainer computes it, and the clips of a step."""
    shards = config.runtime.shards
    rate = learning_rate(config.optimizer, epoch=0, step=0, steps=100, shards=shards)
    return rate, config.runtime.batch_size * shards


@pytest.mark.parametrize(
    ("kind", "rates", "batches"),
    [
        ("distill", (0.01, 0.04, 0.08), (32, 128, 256)),  # VMZ: both grow with the GPUs
        ("finetune", (0.002, 0.002, 0.002), (32, 32, 32)),  # the paper's .002; VMZ's 4 x 8 clips
        ("scratch", (0.01, 0.01, 0.01), (32, 32, 32)),
    ],
)
def test_variants_for_more_gpus_have_the_same_learning_rate_per_clip(
    kind: str, rates: tuple[float, ...], batches: tuple[int, ...]
) -> None:
    configs = [training(f"gpus/{kind}_{gpus}") for gpus in GPUS]
    found = [first_rate_and_batch(config) for config in configs]
    assert [batch for _, batch in found] == list(batches)
    assert [rate for rate, _ in found] == pytest.approx(rates, rel=1e-12)
    assert [rate / batch for rate, batch in found] == pytest.approx([PER_CLIP[kind]] * 3, rel=1e-12)
    workers = [(c.runtime.workers, c.runtime.shards, c.runtime.gpus_per_worker) for c in configs]
    assert workers == [(0, 1, 0), (4, 4, 1), (8, 8, 1)]
    different = {"learning_rate": 1.0}
    rest = [
        config.model_copy(
            update={
                "optimizer": config.optimizer.model_copy(update=different),
                "runtime": RuntimeConfig(),
            }
        )
        for config in configs
    ]
    assert rest[0] == rest[1] == rest[2], "nothing but the batches and their rate differs"
    paper = training(f"paper/{kind}")
    assert rest[0].optimizer == paper.optimizer.model_copy(update=different)
    rate, batch = first_rate_and_batch(paper)
    assert rate / batch == pytest.approx(PER_CLIP[kind], rel=1e-12)


def test_the_variant_with_24_clips_per_gpu_has_the_papers_rate_per_gpu() -> None:
    config = distillation("gpus/distill_8gpu_batch24")
    assert first_rate_and_batch(config) == (pytest.approx(0.08), 192)
    assert config.optimizer == distillation("gpus/distill_8gpu").optimizer


def test_the_layout_of_vmz_is_that_of_eight_gpus() -> None:
    """VMZ's finetune_hmdb51.sh: 4 clips on each of 8 GPUs, decay .005, 8 epochs of 40,000 clips."""
    config = training("gpus/finetune_8gpu")
    assert (config.runtime.batch_size, config.optimizer.learning_rate) == (4, 0.00025)
    assert (config.optimizer.weight_decay, config.optimizer.clips_per_epoch) == (0.005, 40_000)
    assert (config.optimizer.epochs, config.optimizer.step_epochs) == (8, 2)


@pytest.mark.parametrize(
    "name", [name for name in FILES if not name.startswith(("demo", "digits"))]
)
def test_configurations_for_gpus_compute_in_bf16_with_a_compiled_student(name: str) -> None:
    runtime = training(name).runtime
    assert runtime.precision == "bf16"
    assert runtime.compile == name.startswith("gpus/")


@pytest.mark.parametrize(
    ("student", "feature", "rate", "decay", "start", "end", "clip"),
    [
        ("mvit", "mvit_v2_s", 1e-4 / 16, 0.05, 0.01, 0.01, 1.0),
        ("swin3d", "swin3d_t", 1e-3 / 64, 0.02, 0.1, 0.0, None),
    ],
)
def test_transformers_have_the_rates_of_their_authors(
    student: str,
    feature: str,
    rate: float,
    decay: float,
    start: float,
    end: float,
    clip: float | None,
) -> None:
    """PySlowFast's MVITv2_S_16x4 and Video-Swin's swin_tiny_patch244_window877 for Kinetics-400."""
    distill, finetune = training(f"distill_{student}"), training(f"finetune_{student}")
    assert distill.student is not None
    assert distill.student.name == feature
    for config in (distill, finetune):
        optimizer = config.optimizer
        assert (optimizer.name, optimizer.schedule) == ("adamw", "cosine")
        assert (optimizer.betas, optimizer.eps) == ((0.9, 0.999), 1e-8)
        assert (optimizer.weight_decay, optimizer.decay_biases, optimizer.decay_norms) == (
            decay,
            False,
            False,
        )
        assert (optimizer.warmup_start_factor, optimizer.cosine_end_factor) == (start, end)
        assert optimizer.clip_gradient_norm == clip
        check_clip(distill.student, config.clip)
    full = distill.optimizer.learning_rate / distill.runtime.batch_size
    assert full == pytest.approx(rate)
    pretrained = finetune.optimizer.learning_rate / finetune.runtime.batch_size
    assert pretrained == pytest.approx(rate if student == "mvit" else 0.1 * rate)
    assert isinstance(finetune, FinetuneConfig)
    assert (finetune.dropout, finetune.label_smoothing) == (0.5, 0.1 if student == "mvit" else 0)


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
