"""runtime.compile compiles once: neither an epoch's end nor an evaluation compiles again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import toys
from torch import Tensor, nn

from distinit.pipeline.progress import NullProgress
from distinit.pipeline.students.heads import Student
from distinit.pipeline.training.collective import Collective
from distinit.pipeline.training.loop import train
from distinit.schemas.evaluation import ScoredSubset

CLIPS = 19  # three steps of two shards with three clips, and one clip that fits into none


class Evaluated:
    """An evaluator that runs batches of another size through the student."""

    every = 1
    subset: ScoredSubset = "test"

    def __init__(self) -> None:
        self.calls = 0

    def evaluate(
        self, student: Student, collective: Collective, device: torch.device
    ) -> dict[str, int | float]:
        self.calls += 1
        with torch.no_grad():
            student.eval()(torch.zeros(2, 3, 2, 4, 4))
        return {"top1": 0.0}


@pytest.mark.parametrize("reduction", ["exact", "overlapped"])
def test_all_steps_of_all_epochs_run_the_same_compiled_student(
    reduction: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without inductor, which needs a C++ compiler; what is traced, and how often, is the same."""
    batches: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        batches.append(next(len(t) for t in inputs if t.ndim == 5 and t.shape[-1] == 4))
        return graph.forward

    compile_: Callable[[nn.Module], nn.Module] = partial(torch.compile, backend=backend)
    monkeypatch.setattr(torch, "compile", compile_)
    runtime = {"batch_size": 3, "shards": 2, "compile": True, "reduction": reduction}
    settings = toys.make_settings({"epochs": 3}, runtime)
    evaluator = Evaluated()
    torch.compiler.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        outcome = train(
            toys.ToyTask(count=CLIPS),
            settings,
            toys.make_run(tmp_path / "run"),
            NullProgress(),
            evaluator,
        )
    assert (outcome.global_steps, evaluator.calls) == (9, 2)
    assert batches == [3]
