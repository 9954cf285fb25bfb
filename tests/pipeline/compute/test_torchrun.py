"""Which processes torchrun has started, and which commands it cannot start several times."""

from __future__ import annotations

import pytest

from distinit.pipeline.compute.torchrun import (
    Launch,
    helped_by_others,
    launched,
    refuse_python_calls,
    refuse_several_processes,
)
from distinit.schemas.errors import ConfigError


def set_launch(monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int) -> None:
    values = {"RANK": rank, "LOCAL_RANK": rank % 4, "WORLD_SIZE": world_size}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")


def test_torchrun_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    set_launch(monkeypatch, 5, 8)
    assert launched() == Launch(rank=5, local_rank=1, world_size=8)


def test_other_launchers_are_not_taken_for_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    set_launch(monkeypatch, 0, 8)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert launched() is None
    refuse_several_processes("extract")


def test_only_training_may_have_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    set_launch(monkeypatch, 0, 2)
    refuse_several_processes("distill")
    refuse_several_processes("finetune")
    with pytest.raises(ConfigError) as caught:
        refuse_several_processes("extract")
    assert caught.value.found == "2 processes"
    assert caught.value.remedy == "run `distinit extract` without torchrun"
    set_launch(monkeypatch, 0, 1)
    refuse_several_processes("extract")


def test_calls_from_python_are_refused_in_several_processes() -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_python_calls(Launch(rank=1, local_rank=1, world_size=2))
    assert caught.value.found == "a call from Python in 2 processes"
    refuse_python_calls(Launch(rank=0, local_rank=0, world_size=1))
    with helped_by_others():
        refuse_python_calls(Launch(rank=0, local_rank=0, world_size=2))
