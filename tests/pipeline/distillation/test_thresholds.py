"""keep_fraction is a share of the clips as they are drawn, compared with enumerating all clips."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import sources
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax

from distinit.pipeline.cache.quantile import weighted_quantile
from distinit.pipeline.distillation import task as task_module
from distinit.pipeline.distillation.drawn_clips import SAMPLED_CLIPS, frame_weights
from distinit.pipeline.distillation.targets import select_frames
from distinit.pipeline.distillation.task import DistillTask, open_distill_task
from distinit.pipeline.distillation.thresholds import read_thresholds, write_thresholds
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError, RunMismatchError
from distinit.schemas.thresholds import ThresholdRecord

FRAMES = {name: count for name, count in sources.FRAMES.items() if name != "bad"}
Drawn = tuple[float, str, list[int], bool]
"""(probability, video id, frames with a target in the order of the clip, flipped)"""


def config(cache: Path, frames: Path, clip: int, *, flip: float = 0.5, **target: Any) -> Any:
    values = {
        "cache": str(cache),
        "frames": str(frames),
        "out": "unused",
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": clip, "crop": 16, "flip": flip},
        "targets": [target],
        "optimizer": {"clips_per_epoch": 3000},
    }
    return DistillConfig.model_validate(values)


def drawn_clips(clip: int, every: int, flip: float) -> Iterator[Drawn]:
    """Every clip that can be drawn from FRAMES, where each ``every``-th frame has a target."""
    for name, count in FRAMES.items():
        starts = range(max(1, count - clip + 1))
        clips = [[f % count for f in range(start, start + clip)] for start in starts]
        clips = [c for c in clips if any(f % every == 0 for f in c)]
        for frames, flipped in itertools.product(clips, (False, True)):
            share = flip if flipped else 1 - flip
            yield share / len(FRAMES) / len(clips), sources.video_id_of(name), frames, flipped


def picked(pick: str, k: int, frames: list[int], every: int) -> list[list[int]]:
    """The equally likely choices of frames of one clip."""
    places = [p for p, f in enumerate(frames) if f % every == 0]
    if pick == "all":
        return [[frames[p] for p in places]]
    if pick == "center":
        middle = len(frames) // 2
        return [[frames[min(places, key=lambda p: (abs(p - middle), p))]]]
    if pick == "uniform":
        spread = {(2 * part + 1) * len(places) // (2 * k) for part in range(k)}
        return [[frames[places[place]] for place in sorted(spread)]]
    size = min(len(places), k)
    return [[frames[p] for p in chosen] for chosen in itertools.combinations(places, size)]


def entropy_of(video: str, frames: list[int], teacher: str) -> float:
    logits = [sources.logits_of(video, teacher, f).astype(np.float64) for f in frames]
    p = softmax(np.mean(logits, axis=0))
    return float(-(p * np.log(p)).sum())


def distribution(
    pick: str, k: int, clip: int, every: int, flip: float, mirrored: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(entropy, probability) of every target of every clip."""
    found = []
    for probability, video, frames, flipped in drawn_clips(clip, every, flip):
        choices = picked(pick, k, frames, every)
        teacher = "alpha-flip" if flipped and mirrored else "alpha"
        for chosen in choices:
            found.append((entropy_of(video, chosen, teacher), probability / len(choices)))
    entropies, weights = zip(*found, strict=True)
    return np.array(entropies), np.array(weights)


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("paired")
    sources.write_cache(root / "every", ("alpha", "alpha-flip"))
    sources.write_cache(root / "third", ("alpha", "alpha-flip"), every=3)
    return root


@pytest.mark.parametrize(
    ("pick", "every", "mirrored"),
    [
        *itertools.product(("random", "center", "uniform"), (1, 3), (False, True)),
        ("k_random", 3, True),
    ],
)
def test_the_threshold_is_the_quantile_of_the_targets_of_all_clips(
    paired: Path, stored: Path, pick: str, every: int, mirrored: bool
) -> None:
    cache = "every" if every == 1 else "third"
    entropies, weights = distribution(pick, 1, 4, every, 0.25, mirrored)
    for fraction in (0.1, 0.5, 0.9):
        target = {"teacher": "alpha", "pick": pick, "filter": {"keep_fraction": fraction}}
        if mirrored:
            target["flipped_teacher"] = "alpha-flip"
        task = open_distill_task(config(paired / cache, stored / "frames", 4, flip=0.25, **target))
        found = task.thresholds.teachers["alpha"]
        exact = np.quantile(entropies, fraction - 1e-7, weights=weights, method="inverted_cdf")
        assert found.threshold_nats == pytest.approx(exact, abs=2e-6)
        near = np.abs(entropies - exact) < 2e-6
        below = weights[(entropies < exact) & ~near].sum()
        assert found.kept == pytest.approx(below + weights[near].sum(), abs=1e-9)
        assert found.tied == pytest.approx(weights[near].sum(), abs=1e-9)
        assert below < fraction <= found.kept + 1e-9
        assert (found.sampled_clips, found.standard_error) == (None, 0)


@pytest.mark.parametrize(
    ("pick", "k", "cache", "every"),
    [("k_random", 2, "every", 1), ("uniform", 2, "third", 3), ("all", 1, "third", 3)],
)
def test_the_threshold_of_averages_keeps_the_share_within_its_error(
    paired: Path, stored: Path, pick: str, k: int, cache: str, every: int
) -> None:
    entropies, weights = distribution(pick, k, 5, every, 0.5, False)
    target = {"teacher": "alpha", "pick": pick, "k": k, "filter": {"keep_fraction": 0.3}}
    task = open_distill_task(config(paired / cache, stored / "frames", 5, **target))
    found = task.thresholds.teachers["alpha"]
    assert found.sampled_clips == SAMPLED_CLIPS == 65_536
    assert 0.0017 < found.standard_error < 0.002
    error = 4 * found.standard_error
    kept = weights[entropies <= found.threshold_nats + 1e-6].sum()
    assert kept == pytest.approx(found.kept, abs=error)
    assert weights[entropies < found.threshold_nats - 1e-6].sum() < 0.3 + error
    assert kept > 0.3 - error


def kept_share(task: DistillTask) -> float:
    return float(task.look_up(0, np.arange(3000))["weight/alpha"].mean())


UNEQUAL = {f"short{i}": 8 for i in range(90)} | {f"long{i}": 150 for i in range(10)}
SURE = {sources.video_id_of(f"long{i}") for i in range(10)}


def unequal_logits(video: str, teacher: str, frame: int) -> NDArray[np.float32]:
    """Confident in the long videos, uncertain in the short ones; all entropies differ."""
    seed = int(sources.digest_of(f"{video}/{frame}")[:8], 16)
    first = np.random.default_rng(seed).uniform(4, 8) if video in SURE else seed / 2**32
    return np.array([first, 0, 0, 0, 0, 0, 0], np.float32).astype(np.float16).astype(np.float32)


def test_half_of_the_clips_are_kept_although_most_frames_are_in_a_few_confident_videos(
    tmp_path: Path,
) -> None:
    sources.write_cache(tmp_path / "cache", ("alpha",), frames=UNEQUAL, logits_of=unequal_logits)
    sources.write_frames(tmp_path / "frames", UNEQUAL)
    for target in ({"pick": "random"}, {"pick": "k_random", "k": 2}):
        half = target | {"filter": {"keep_fraction": 0.5}}
        task = open_distill_task(config(tmp_path / "cache", tmp_path / "frames", 8, **half))
        assert task.thresholds.teachers["alpha"].kept == pytest.approx(0.5, abs=0.01)
        assert kept_share(task) == pytest.approx(0.5, abs=0.03)


def test_the_share_of_a_given_threshold_is_that_of_the_clips(stored: Path) -> None:
    entropies, weights = distribution("random", 1, 4, 1, 0.5, False)
    target = {"filter": {"max_entropy_nats": 1.0}}
    task = open_distill_task(config(stored / "one", stored / "frames", 4, **target))
    found = task.thresholds.teachers["alpha"]
    assert (found.threshold_nats, found.tied) == (1.0, 0.0)
    assert found.kept == pytest.approx(weights[entropies <= 1].sum(), abs=1e-9)
    assert kept_share(task) == pytest.approx(found.kept, abs=0.03)


def test_workers_and_later_processes_use_the_recorded_threshold(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = {"pick": "k_random", "k": 2, "filter": {"keep_fraction": 0.5}}
    cfg = config(stored / "one", stored / "frames", 4, **target)
    task = open_distill_task(cfg)
    assert task.thresholds == open_distill_task(cfg).thresholds, "the sample is always the same"
    other_seed = {"runtime": cfg.runtime.model_copy(update={"seed": 7})}
    assert open_distill_task(cfg.model_copy(update=other_seed)).thresholds == task.thresholds

    assert read_thresholds(tmp_path, cfg) is None
    write_thresholds(tmp_path, task.thresholds)
    assert read_thresholds(tmp_path, cfg) is None, "without run.json it belongs to no run"
    (tmp_path / "run.json").write_text("{}")
    assert read_thresholds(tmp_path, cfg) is None, "a run that has not begun may be replaced"
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    recorded = read_thresholds(tmp_path, cfg)
    assert recorded == task.thresholds
    changed = config(stored / "one", stored / "frames", 5, **target)
    assert read_thresholds(tmp_path, changed) is None

    monkeypatch.setattr(task_module, "find_thresholds", None)
    assert open_distill_task(cfg, recorded).readers[0].threshold_nats == (
        task.readers[0].threshold_nats
    )
    rebuild, arguments = task.__reduce__()
    assert rebuild(*arguments).thresholds == task.thresholds
    monkeypatch.undo()
    without = task.thresholds.model_copy(update={"teachers": {}})
    assert open_distill_task(cfg, without).thresholds == task.thresholds

    (tmp_path / "thresholds.json").write_text('{"format": "distinit-thresholds", "x": 1}')
    with pytest.raises(RunMismatchError, match=r"thresholds\.json is not a valid"):
        read_thresholds(tmp_path, cfg)


def test_a_teacher_without_a_target_in_any_clip_is_an_error(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "distinit.pipeline.distillation.targets.TargetReader.stored_entropies",
        lambda self, rows_M, flip_M: np.full(len(rows_M), np.nan, np.float32),
    )
    target = {"filter": {"keep_fraction": 0.5}}
    with pytest.raises(ConfigError, match="no clip has a target of teacher alpha"):
        open_distill_task(config(stored / "one", stored / "frames", 4, **target))


def test_the_line_for_the_terminal_states_the_error_of_a_sample() -> None:
    exact = ThresholdRecord(threshold_nats=1.5, kept=0.5, tied=0)
    assert exact.line() == "entropy at most 1.500 nats, which keeps 50.0% of the clips"
    sampled = ThresholdRecord(threshold_nats=1.5, kept=0.5, tied=0, sampled_clips=10_000)
    assert sampled.standard_error == 0.005
    assert sampled.line() == "entropy at most 1.500 nats, which keeps 50.0% of the clips, ± 0.5%"


@st.composite
def corpora(draw: st.DrawFn) -> tuple[int, list[tuple[list[bool], list[bool]]]]:
    """(clip length, for each video whether its frames are used, and have a target)."""
    frames = draw(st.integers(1, 6))
    videos = []
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.integers(frames, frames + 9))
        used = draw(st.lists(st.booleans(), min_size=count, max_size=count))
        used[draw(st.integers(0, count - 1))] = True
        own = [u and draw(st.booleans()) for u in used]
        videos.append((used, own))
    return frames, videos


@given(corpus=corpora(), pick=st.sampled_from(["random", "center", "uniform"]))
def test_weights_of_frames_are_those_of_enumerating_all_starts(
    corpus: tuple[int, list[tuple[list[bool], list[bool]]]], pick: Any
) -> None:
    frames, videos = corpus
    expected = []
    for used, own in videos:
        weight_F = np.zeros(len(own))
        clips = [range(s, s + frames) for s in range(len(own) - frames + 1)]
        clips = [clip for clip in clips if any(used[f] for f in clip)]
        for clip in clips:
            has_target_1T = np.array([[own[f] for f in clip]])
            selected_T = has_target_1T[0]
            if pick != "random":
                selected_T = select_frames(pick, 1, has_target_1T, np.zeros((1, frames)))[0]
            for place in np.flatnonzero(selected_T):
                weight_F[clip[place]] += 1 / len(clips) / selected_T.sum()
        expected.append(weight_F)
    counts_V = np.array([len(own) for _, own in videos])
    used_F, own_F = (np.concatenate([v[i] for v in videos]).astype(bool) for i in (0, 1))
    found = frame_weights(pick, frames, counts_V, used_F, own_F)
    assert found == pytest.approx(np.concatenate(expected), abs=1e-12)


@given(
    values=st.lists(
        st.tuples(st.one_of(st.floats(0, 7, width=32), st.just(float("nan"))), st.integers(0, 4)),
        min_size=1,
        max_size=30,
    ),
    fraction=st.sampled_from([0.01, 0.25, 0.5, 0.75, 1.0]),
)
def test_the_weighted_quantile_is_numpys(values: list[tuple[float, int]], fraction: float) -> None:
    value_N = np.array([v for v, _ in values], np.float32)
    weight_N = np.array([w for _, w in values], np.float64)
    found = weighted_quantile(
        lambda: [(value_N[:3], weight_N[:3]), (value_N[3:], weight_N[3:])], fraction
    )
    used = ~np.isnan(value_N) & (weight_N > 0)
    if not used.any():
        assert np.isnan(found)
        return
    order = np.argsort(value_N[used])
    share = np.cumsum(weight_N[used][order]) / weight_N[used].sum()
    expected = value_N[used][order][np.flatnonzero(share >= fraction - 1e-8)[0]]
    assert found == expected
