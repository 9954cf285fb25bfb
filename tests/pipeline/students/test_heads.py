"""Heads: their names, outputs and seeds, and the frozen backbone."""

from __future__ import annotations

import torch

from distinit.pipeline.students.heads import new_student
from distinit.schemas.training import StudentConfig

TINY = StudentConfig(name="tiny_r2plus1d_10")


def test_each_head_has_an_output_and_dots_in_names_are_escaped() -> None:
    student = new_student(TINY, {"resnet50.v1": 7, "places": 3}, seed=0).eval()
    outputs = student(torch.randn(2, 3, 4, 16, 16))
    assert {name: tuple(t.shape) for name, t in outputs.items()} == {
        "resnet50.v1": (2, 7),
        "places": (2, 3),
    }
    assert "heads.places.weight" in student.state_dict()
    assert "heads.resnet50%2Ev1.bias" in student.state_dict()


def test_weights_depend_on_the_seed_and_the_global_generator_is_unchanged() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    a, b, c = (new_student(TINY, {"a": 3}, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["heads.a.weight"], c["heads.a.weight"])


def test_a_frozen_backbone_gets_no_gradients_and_keeps_its_statistics() -> None:
    student = new_student(TINY, {"a": 3}, seed=0)
    student.freeze_backbone()
    before = {k: v.clone() for k, v in student.state_dict().items()}
    student.train()
    student(torch.randn(2, 3, 4, 16, 16))["a"].sum().backward()
    assert {n for n, p in student.named_parameters() if p.grad is not None} == {
        "heads.a.weight",
        "heads.a.bias",
    }
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())
