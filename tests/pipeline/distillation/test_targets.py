"""Which frames the target of a clip is made from, how they are averaged, and which are kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.distillation.targets import (
    TargetReader,
    average_frames,
    entropy_nats,
    select_frames,
)
from distinit.schemas.distill import TargetConfig

ALL = np.ones((1, 8), bool)
UNIFORM = np.array([[0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.6]])


def picked(pick: Any, k: int = 1, present: np.ndarray = ALL) -> list[int]:
    selected = select_frames(pick, k, present, UNIFORM)
    return np.nonzero(selected[0])[0].tolist()


def test_every_pick_if_all_frames_are_cached() -> None:
    assert picked("center") == [4]
    assert picked("random") == [1]
    assert picked("random", k=5) == [1]
    assert picked("k_random", 3) == [1, 3, 5]
    assert picked("uniform", 1) == [4]
    assert picked("uniform", 2) == [2, 6]
    assert picked("uniform", 3) == [1, 4, 6]
    assert picked("all") == list(range(8))


def test_every_pick_if_only_some_frames_are_cached() -> None:
    sparse = np.array([[1, 0, 0, 1, 0, 0, 1, 0]], bool)
    assert picked("center", present=sparse) == [3]
    assert picked("random", present=sparse) == [3]
    assert picked("k_random", 2, sparse) == [0, 3]
    assert picked("k_random", 5, sparse) == [0, 3, 6]
    assert picked("uniform", 1, sparse) == [3]
    assert picked("all", present=sparse) == [0, 3, 6]
    assert picked("random", present=np.zeros((1, 8), bool)) == []


@given(
    present=st.lists(st.booleans(), min_size=1, max_size=12),
    pick=st.sampled_from(["center", "random", "uniform", "k_random", "all"]),
    k=st.integers(1, 12),
    seed=st.integers(0, 100),
)
def test_selection_is_inside_the_present_frames_and_of_the_right_size(
    present: list[bool], pick: Any, k: int, seed: int
) -> None:
    present_NT = np.array([present])
    uniform = np.random.default_rng(seed).random(present_NT.shape)
    selected = select_frames(pick, k, present_NT, uniform)
    assert not (selected & ~present_NT).any()
    requested = {"all": len(present), "uniform": k, "k_random": k}.get(pick, 1)
    assert selected.sum() == min(requested, present_NT.sum())


def test_random_frames_are_uniform() -> None:
    uniform = np.random.default_rng(0).random((8000, 8))
    counts = select_frames("random", 1, np.ones((8000, 8), bool), uniform).sum(axis=0)
    assert (np.abs(counts - 1000) < 150).all()


def test_the_average_of_a_clip_without_frames_is_zero() -> None:
    values = np.array([[2.0, 0.0], [4.0, 2.0], [7.0, 7.0]], np.float32)
    means = average_frames(values, np.array([1, 1, 3]), 4)
    assert means.tolist() == [[0, 0], [3, 1], [0, 0], [7, 7]]


def test_entropy_is_maximal_if_uniform_and_0_if_certain() -> None:
    rows = torch.tensor([[0.25] * 4, [1.0, 0.0, 0.0, 0.0]])
    assert entropy_nats(rows).tolist() == pytest.approx([np.log(4), 0.0])


def test_a_filter_needs_a_threshold_before_it_is_used() -> None:
    assert reader()[0].threshold_nats == float("inf")
    assert reader(filter={"keep_fraction": 1.0})[0].threshold_nats == float("inf")
    assert reader(filter={"max_entropy_nats": 2.5})[0].threshold_nats == 2.5
    some, stored = reader(pick="center", filter={"keep_fraction": 0.5})
    with pytest.raises(RuntimeError, match="no threshold before set_threshold"):
        some.read(ROWS, EVEN)
    some.set_threshold(float(stored.entropy_nats[0]))
    assert some.read(np.array([[0], [2], [-1]]), EVEN).confident_B.tolist() == [True, False, False]


LOGITS = np.array([[4, 0, 0], [0, 4, 0], [0, 0, 0], [9, 0, 0]], np.float32)


class Stored:
    """Four rows of one teacher, with entropies like those that a cache stores."""

    record = SimpleNamespace(id="t")

    def __init__(self) -> None:
        p = torch.softmax(torch.from_numpy(LOGITS), dim=1)
        self.entropy_nats = entropy_nats(p).float().numpy()
        self.reads = 0
        self.committed_units = np.ones(2, np.bool_)
        self.unit_rows = 2

    def logits(self, rows: np.ndarray) -> np.ndarray:
        self.reads += 1
        return LOGITS[rows]


def reader(**config: Any) -> tuple[TargetReader, Stored]:
    stored = Stored()
    return TargetReader(TargetConfig.model_validate(config), stored), stored  # type: ignore[arg-type]


ROWS = np.array([[0, 1], [3, -1], [-1, -1], [2, 2]])
EVEN = np.tile([0.2, 0.1], (4, 1))


def softmax(logits: Any) -> torch.Tensor:
    return torch.softmax(torch.tensor(logits, dtype=torch.float32), dim=-1)


def test_logits_are_averaged_before_softmax_and_probabilities_after() -> None:
    before = reader(pick="all", average="logits")[0].read(ROWS, EVEN).target_BC
    after = reader(pick="all", average="probabilities")[0].read(ROWS, EVEN).target_BC
    assert torch.allclose(before[0], softmax([2.0, 2.0, 0.0]), atol=1e-6)
    mean = (softmax([4.0, 0, 0]) + softmax([0, 4.0, 0])) / 2
    assert torch.allclose(after[0], mean, atol=1e-6)
    assert not torch.allclose(before[0], after[0], atol=1e-2)
    assert before[2].tolist() == after[2].tolist() == [0, 0, 0]


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_softmax_is_applied_once_with_the_temperature(average: str) -> None:
    target = reader(pick="center", average=average, temperature=2.0)[0].read(ROWS, EVEN).target_BC
    assert torch.allclose(target[0], softmax([0.0, 2.0, 0.0]), atol=1e-6)
    assert torch.allclose(target[1], softmax([4.5, 0.0, 0.0]), atol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "cosine"])
def test_logit_losses_get_logits(loss: str) -> None:
    target = reader(pick="all", loss=loss)[0].read(ROWS, EVEN).target_BC
    assert target.tolist() == [[2, 2, 0], [9, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_without_a_filter_every_clip_with_a_frame_is_confident() -> None:
    assert reader(pick="random")[0].read(ROWS, EVEN).confident_B.tolist() == [
        True,
        True,
        False,
        True,
    ]


def test_the_stored_entropy_decides_for_a_single_frame() -> None:
    one, stored = reader(pick="random", filter={"max_entropy_nats": 0.3})
    stored.entropy_nats = np.array([0.2, 0.4, 0.1, 0.5], np.float32)
    assert one.read(ROWS, EVEN).confident_B.tolist() == [False, False, False, True]
    assert one.read(ROWS, EVEN[:, ::-1]).confident_B.tolist() == [True, False, False, True]


def test_the_entropy_at_temperature_one_decides_for_an_averaged_target() -> None:
    averaged = entropy_nats(softmax([[2.0, 2.0, 0.0]])).item()
    for margin, expected in ((1e-4, True), (-1e-4, False)):
        limit = {"max_entropy_nats": averaged + margin}
        some = reader(pick="all", temperature=5.0, filter=limit)[0]
        assert some.read(ROWS, EVEN).confident_B[0] == expected
    assert averaged > Stored().entropy_nats[:2].max()


@pytest.mark.parametrize("pick", ["random", "all"])
def test_confident_agrees_with_read(pick: str) -> None:
    some, stored = reader(pick=pick, filter={"max_entropy_nats": 0.9})
    assert some.confident(ROWS, EVEN).tolist() == some.read(ROWS, EVEN).confident_B.tolist()
    fresh, stored = reader(pick="random", filter={"max_entropy_nats": 0.9})
    fresh.confident(ROWS, EVEN)
    assert stored.reads == 0


def test_options_that_contradict_each_other_are_rejected() -> None:
    with pytest.raises(ValueError, match="average must be logits"):
        TargetConfig(loss="mse", average="probabilities")
    with pytest.raises(ValueError, match="temperature must be 1"):
        TargetConfig(loss="cosine", temperature=2)


MIRRORED = LOGITS[::-1].copy()


class Mirrored(Stored):
    """The same rows of the same teacher for mirrored frames."""

    record = SimpleNamespace(id="t-flip")

    def __init__(self) -> None:
        super().__init__()
        self.entropy_nats = self.entropy_nats[::-1].copy()

    def logits(self, rows: np.ndarray) -> np.ndarray:
        return MIRRORED[rows]


def paired(**config: Any) -> TargetReader:
    stored, mirrored = Stored(), Mirrored()
    stored.record = mirrored.record = SimpleNamespace(  # type: ignore[assignment]
        id="t", identity=SimpleNamespace(classes=3)
    )
    return TargetReader(TargetConfig.model_validate(config), stored, mirrored)  # type: ignore[arg-type]


FLIP = np.array([True, False, True, False])


def test_flipped_clips_get_the_targets_of_flipped_frames() -> None:
    target = paired(pick="all", loss="mse").read(ROWS, EVEN, FLIP).target_BC
    # Rows 0 and 1 of the mirrored teacher; row 3 and row 2 (twice) of the other.
    assert target.tolist() == [[4.5, 0, 0], [9, 0, 0], [0, 0, 0], [0, 0, 0]]
    unpaired = reader(pick="all", loss="mse")[0].read(ROWS, EVEN, FLIP).target_BC
    assert unpaired.tolist() == [[2, 2, 0], [9, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("pick", ["random", "all"])
def test_the_filter_uses_the_entropy_of_the_flipped_frame_for_a_flipped_clip(pick: str) -> None:
    some = paired(pick=pick, filter={"max_entropy_nats": 0.1})
    one = np.array([[3], [3], [0], [0]])
    uniform = np.full((4, 1), 0.5)
    # Confident: row 3, and row 0 of the mirrored teacher.
    found = some.read(one, uniform, FLIP).confident_B.tolist()
    assert found == [False, True, True, False]
    assert some.confident(one, uniform, FLIP).tolist() == found


def test_rows_that_an_incomplete_teacher_has_not_written_are_absent() -> None:
    stored = Stored()
    stored.committed_units = np.array([True, False])  # rows 0 and 1 of four
    target = TargetConfig.model_validate({"pick": "center"})
    incomplete = TargetReader(target, cast(Any, stored))
    rows = np.array([[0, 2], [2, 1], [3, 3], [-1, -1]])
    assert incomplete.written(rows).tolist() == [[0, -1], [-1, 1], [-1, -1], [-1, -1]]
    found = incomplete.read(rows, EVEN)
    assert found.present_B.tolist() == found.confident_B.tolist() == [True, True, False, False]
    expected = torch.softmax(torch.from_numpy(LOGITS[[0, 1]]), dim=1)
    assert torch.equal(found.target_BC[:2], expected)
    assert not found.target_BC[2:].any()
    assert incomplete.confident(rows, EVEN).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("config", "is_bound"),
    [
        ({}, False),
        ({"filter": {"keep_fraction": 0.5}}, False),
        ({"filter": {"max_entropy_nats": 0.1}}, True),
        ({"pick": "all", "filter": {"max_entropy_nats": 0.1}}, False),
        ({"pick": "k_random", "k": 2, "filter": {"max_entropy_nats": 0.1}}, False),
        ({"pick": "all", "average": "probabilities", "filter": {"max_entropy_nats": 0.1}}, True),
    ],
)
def test_the_lowest_entropy_is_given_only_if_no_target_can_be_below_it(
    config: dict[str, Any], is_bound: bool
) -> None:
    some, stored = reader(**config)
    assert some.lowest_entropy_nats() == (float(stored.entropy_nats.min()) if is_bound else None)
