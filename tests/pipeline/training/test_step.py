"""One optimiser step: exact gradients, running statistics, and the optimisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import toys
from torch import Tensor

from distinit.pipeline.students.heads import new_student
from distinit.pipeline.training.clips import to_clip
from distinit.pipeline.training.collective import SingleProcess
from distinit.pipeline.training.optimizer import new_optimizer
from distinit.pipeline.training.step import Stepper
from distinit.schemas.training import StudentConfig

CPU = torch.device("cpu")


def shards_of(task: Any, count: int, size: int = 4) -> list[tuple[int, Any]]:
    return [(s, task.load(0, np.arange(s * size, (s + 1) * size))) for s in range(count)]


def gradients(stepper: Stepper) -> dict[str, Tensor]:
    named = stepper.student.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def test_two_shards_give_the_gradient_of_the_joint_batch() -> None:
    task = toys.ToyTask(norm=False, dtype=torch.float64)
    settings = toys.make_settings(runtime={"shards": 2})
    stepper = Stepper(task.build(), task, settings, SingleProcess(), CPU)
    metrics = stepper.step(shards_of(task, 2), 0, 0.1)
    student, batch = task.build(), task.load(0, np.arange(8))
    clip = to_clip(batch.pixels_BTCHW, batch.flip_B, settings.clip, torch.float64)
    loss, task_metrics = task.loss(student(clip), batch.targets)
    loss.backward()
    assert metrics["loss"].item() == pytest.approx(loss.item(), abs=1e-12)
    assert metrics["accuracy"].item() == pytest.approx(task_metrics["accuracy"].item(), abs=1e-12)
    expected = {name: p.grad for name, p in student.named_parameters()}
    for name, gradient in gradients(stepper).items():
        assert (gradient - expected[name]).abs().max() < 1e-9, name


class TwoWorkers:
    """The collective of one of two workers that run one after the other.

    ``other``: the tensor that the other worker passed to ``sum_``, if it ran before.
    """

    world_size = 2

    def __init__(self, rank: int, other: Tensor | None) -> None:
        self.rank = rank
        self.sent: Tensor | None = None
        self._other = other

    def sum_(self, tensor: Tensor) -> None:
        self.sent = tensor.clone()
        if self._other is not None:
            tensor.add_(self._other)


def state_after(make: Callable[[int, Tensor | None], Any], own_shards: Any) -> Any:
    task = toys.ToyTask(norm=True)
    settings = toys.make_settings(runtime={"shards": 2})
    collective = make(0, None)
    stepper = Stepper(task.build(), task, settings, collective, CPU)
    metrics = stepper.step(own_shards(shards_of(task, 2)), 0, 0.1)
    return stepper, metrics, collective


def test_two_workers_of_one_shard_equal_one_worker_of_two() -> None:
    single, expected, _ = state_after(lambda *_: SingleProcess(), lambda s: s)
    *_, second = state_after(TwoWorkers, lambda s: s[1:])
    first, metrics, _ = state_after(lambda *_: TwoWorkers(0, second.sent), lambda s: s[:1])
    for name, tensor in single.student.state_dict().items():
        assert torch.allclose(first.student.state_dict()[name], tensor, atol=1e-6, rtol=0), name
    assert metrics["loss"].item() == pytest.approx(expected["loss"].item(), abs=1e-6)


def test_running_statistics_are_the_mean_over_the_shards() -> None:
    task = toys.ToyTask(norm=True)
    singles = []
    for shard in range(2):
        settings = toys.make_settings(runtime={"shards": 1})
        stepper = Stepper(task.build(), task, settings, SingleProcess(), CPU)
        stepper.step([(0, shards_of(task, 2)[shard][1])], 0, 0.1)
        singles.append(stepper.student.state_dict())
    both = Stepper(
        task.build(), task, toys.make_settings(runtime={"shards": 2}), SingleProcess(), CPU
    )
    both.step(shards_of(task, 2), 0, 0.1)
    for name in ("backbone.norm.running_mean", "backbone.norm.running_var"):
        expected = (singles[0][name] + singles[1][name]) / 2
        assert torch.allclose(both.student.state_dict()[name], expected, atol=1e-7)
        assert not torch.allclose(singles[0][name], singles[1][name], atol=1e-5)
    assert both.student.state_dict()["backbone.norm.num_batches_tracked"] == 1


def after_two_steps(**optimizer: Any) -> dict[str, Tensor]:
    task = toys.ToyTask(norm=False, dtype=torch.float64)
    stepper = Stepper(task.build(), task, toys.make_settings(optimizer), SingleProcess(), CPU)
    for step in range(2):
        stepper.step(shards_of(task, 1), step, 0.1)
    return dict(stepper.student.named_parameters())


def by_hand(momentum: float, decay: float, nesterov: bool, decay_biases: bool) -> dict[str, Tensor]:
    task = toys.ToyTask(norm=False, dtype=torch.float64)
    student, batch = task.build(), shards_of(task, 1)[0][1]
    clip = to_clip(batch.pixels_BTCHW, batch.flip_B, toys.make_settings().clip, torch.float64)
    velocity: dict[str, Tensor] = {}
    for _ in range(2):
        student.zero_grad()
        task.loss(student(clip), batch.targets)[0].backward()
        with torch.no_grad():
            for name, p in student.named_parameters():
                decayed = decay_biases or not name.endswith(".bias")
                gradient = p.grad + (decay * p if decayed else 0)
                velocity[name] = momentum * velocity.get(name, 0) + gradient
                p -= 0.1 * (gradient + momentum * velocity[name] if nesterov else velocity[name])
    return dict(student.named_parameters())


@pytest.mark.parametrize(
    ("momentum", "decay", "nesterov", "decay_biases"),
    [
        (0.9, 0.0, True, False),
        (0.9, 0.0, False, False),
        (0.9, 0.1, True, False),
        (0.9, 0.1, True, True),
        (0.0, 0.1, True, False),
    ],
)
def test_sgd_equals_updates_computed_by_hand(
    momentum: float, decay: float, nesterov: bool, decay_biases: bool
) -> None:
    """Biases are decayed only if asked for: VMZ decays weights and batch norm scales."""
    found = after_two_steps(
        momentum=momentum, weight_decay=decay, nesterov=nesterov, decay_biases=decay_biases
    )
    expected = by_hand(momentum, decay, nesterov, decay_biases)
    assert any(name.endswith(".bias") and (p != 0).any() for name, p in expected.items())
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() < 1e-12, name


def adamw_by_hand(decay: float, decay_norms: bool) -> dict[str, Tensor]:
    """Loshchilov and Hutter's Algorithm 2, with betas .8 and .95 and eps 1e-3."""
    task = toys.ToyTask(norm=True, dtype=torch.float64)
    student, batch = task.build(), shards_of(task, 1)[0][1]
    clip = to_clip(batch.pixels_BTCHW, batch.flip_B, toys.make_settings().clip, torch.float64)
    mean: dict[str, Tensor] = {}
    square: dict[str, Tensor] = {}
    for t in (1, 2, 3):
        student.zero_grad()
        task.loss(student(clip), batch.targets)[0].backward()
        with torch.no_grad():
            for name, p in student.named_parameters():
                is_decayed = not name.endswith(".bias") and (decay_norms or "norm" not in name)
                mean[name] = 0.8 * mean.get(name, 0) + 0.2 * p.grad
                square[name] = 0.95 * square.get(name, 0) + 0.05 * p.grad**2
                update = mean[name] / (1 - 0.8**t) / ((square[name] / (1 - 0.95**t)).sqrt() + 1e-3)
                p -= 0.1 * (update + (decay * p if is_decayed else 0))
    return dict(student.named_parameters())


@pytest.mark.parametrize(("decay", "decay_norms"), [(0.0, True), (0.3, True), (0.3, False)])
def test_adamw_equals_updates_computed_by_hand(decay: float, decay_norms: bool) -> None:
    adamw = {"name": "adamw", "betas": (0.8, 0.95), "eps": 1e-3}
    settings = toys.make_settings(adamw | {"weight_decay": decay, "decay_norms": decay_norms})
    task = toys.ToyTask(norm=True, dtype=torch.float64)
    stepper = Stepper(task.build(), task, settings, SingleProcess(), CPU)
    for step in range(3):
        stepper.step(shards_of(task, 1), step, 0.1)
    expected = adamw_by_hand(decay, decay_norms)
    for name, tensor in stepper.student.named_parameters():
        assert (expected[name] - tensor).abs().max() < 1e-9, name


@pytest.mark.parametrize(("student", "tables"), [("mvit_v2_s", 0), ("swin3d_t", 12)])
def test_scales_of_norms_and_position_tables_of_swin_are_not_decayed_if_not_asked_for(
    student: str, tables: int
) -> None:
    built = new_student(StudentConfig(name=student), {"head": 3}, 0)
    config = toys.make_settings({"decay_norms": False}).optimizer
    decayed, others = (group["params"] for group in new_optimizer(built, config).param_groups)
    names = {id(p): name for name, p in built.named_parameters()}
    kept = {names[id(p)] for p in others}
    assert len(decayed) + len(others) == len(names)
    norms = {n for n, m in built.named_modules() if isinstance(m, torch.nn.LayerNorm)}
    assert {f"{n}.weight" for n in norms} <= kept
    assert sum(name.endswith(".relative_position_bias_table") for name in kept) == tables
    scales = {n for n in kept if n.endswith(".weight")}
    assert len(scales) == len(norms)
    assert kept - scales == {
        n for n in names.values() if n.endswith((".bias", ".relative_position_bias_table"))
    }


def test_gradient_norm_is_clipped() -> None:
    task = toys.ToyTask(norm=False)
    norms = []
    for limit in (None, 1e-3):
        settings = toys.make_settings({"clip_gradient_norm": limit})
        stepper = Stepper(task.build(), task, settings, SingleProcess(), CPU)
        stepper.step(shards_of(task, 1), 0, 0.1)
        norms.append(torch.cat([g.flatten() for g in gradients(stepper).values()]).norm().item())
    assert norms[0] > 1e-2
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)


def test_dropout_depends_only_on_seed_and_step() -> None:
    def loss(seed: int, step: int) -> float:
        task = toys.ToyTask(dropout=0.5)
        settings = toys.make_settings(runtime={"seed": seed})
        stepper = Stepper(task.build(), task, settings, SingleProcess(), CPU)
        torch.rand(3)
        return stepper.step(shards_of(task, 1), step, 0.1)["loss"].item()

    assert loss(0, 0) == loss(0, 0)
    assert len({loss(0, 0), loss(0, 1), loss(1, 0)}) == 3


def test_a_frozen_backbone_does_not_change() -> None:
    task = toys.ToyTask(norm=True)
    student = task.build()
    student.freeze_backbone()
    before = {k: v.clone() for k, v in student.state_dict().items()}
    settings = toys.make_settings({"weight_decay": 0.5}, {"shards": 2})
    Stepper(student, task, settings, SingleProcess(), CPU).step(shards_of(task, 2), 0, 0.1)
    changed = {k for k, v in student.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"heads.toy.weight", "heads.toy.bias"}


def test_bf16_autocast_rounds_the_forward_pass() -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        task = toys.ToyTask(norm=False)
        settings = toys.make_settings(runtime={"precision": precision})
        stepper = Stepper(task.build(), task, settings, SingleProcess(), CPU)
        losses.append(stepper.step(shards_of(task, 1), 0, 0.1)["loss"].item())
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)


def test_compile_wraps_the_forward_pass_and_keeps_parameter_names() -> None:
    task = toys.ToyTask()
    settings = toys.make_settings(runtime={"compile": True})
    stepper = Stepper(task.build(), task, settings, SingleProcess(), CPU)
    assert isinstance(stepper._reduction.forward, torch._dynamo.OptimizedModule)
    assert stepper.student.state_dict().keys() == task.build().state_dict().keys()
