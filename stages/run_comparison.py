"""Compares two groups of finished finetune runs: mean and spread over seeds, difference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distinit.pipeline.evaluation.intervals import difference_interval, paired_interval
from distinit.pipeline.evaluation.scores_file import scores_name
from distinit.pipeline.evaluation.scores_reader import correct_videos
from distinit.schemas.base import Record
from distinit.schemas.errors import ConfigError, StorageError
from distinit.schemas.wording import counted, one_line
from distinit.stages.finished_run import FinishedRun, read_finished_run, refuse_other_tests

__all__ = ["Accuracy", "RunComparison", "RunGroup", "compare_runs"]


class Accuracy(Record):
    """An accuracy over the runs of a group, percent."""

    mean: float = Field(description="mean over the runs, percent")
    sd: float | None = Field(description="sample standard deviation; null for a single run")

    def text(self) -> str:
        """Such as ``54.2 ± 1.3``."""
        return f"{self.mean:.1f}" + ("" if self.sd is None else f" ± {self.sd:.1f}")


class RunGroup(Record):
    """One side of a comparison."""

    name: str = Field(description="the directory or pattern that was given")
    runs: tuple[str, ...] = Field(description="its finished finetune runs")
    top1: Accuracy = Field(description="accuracy of whole videos, percent")
    per_clip: Accuracy = Field(description="accuracy of single clips, percent")


class RunComparison(Record):
    """Two groups of runs that were evaluated on the same test videos."""

    protocol: str = Field(description="evaluation protocol of all runs")
    test_videos: int = Field(description="test videos of each run")
    groups: tuple[RunGroup, RunGroup] = Field(description="the two groups")
    difference_points: float = Field(description="mean top-1 of the second group less the first")
    interval_points: tuple[float, float] = Field(
        description="95 % interval of it over the test videos"
    )
    interval: Literal["paired", "independent"] = Field(
        description="paired: from the stored scores, video by video; independent: from the counts "
        "alone, as if each group had its own test videos, which is usually wider"
    )

    def summary(self) -> str:
        """A small table, and the difference."""
        rows = [("", "runs", "top-1", "per clip")]
        for group in self.groups:
            runs = str(len(group.runs))
            rows.append((one_line(group.name), runs, group.top1.text(), group.per_clip.text()))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        how = {
            "paired": "paired by video",
            "independent": "from counts only: not every run has stored scores",
        }
        low, high = self.interval_points
        return "\n".join(
            [
                *lines,
                "",
                f"difference in top-1: {self.difference_points:+.1f} points "
                f"(95 % interval {low:+.1f} to {high:+.1f}, {how[self.interval]})",
                f"{counted(self.test_videos, 'test video')}, {self.protocol}; ± is the standard "
                "deviation over runs; the interval is over test videos",
            ]
        )


def compare_runs(first: str, second: str) -> RunComparison:
    """Compare two groups. Each is a run directory, a folder of runs, or a glob pattern.

    Raises ConfigError if a group has no finished finetune run, or if the runs were not evaluated
    on the same test videos with the same protocol.
    """
    groups = [_runs_of(first), _runs_of(second)]
    every = [*groups[0], *groups[1]]
    refuse_other_tests(every[0], every[1:])
    base, other = (100 * sum(run.correct for run in group) / len(group) for group in groups)
    videos = every[0].result.videos
    paired = _paired(groups)
    if paired is None:
        counts = [round(sum(run.correct for run in group) / len(group)) for group in groups]
        low, high = difference_interval(counts[1], videos, counts[0], videos)
    else:
        low, high = paired
    return RunComparison(
        protocol=every[0].result.protocol,
        test_videos=videos,
        groups=(_group(first, groups[0]), _group(second, groups[1])),
        difference_points=(other - base) / videos,
        interval_points=(100 * low, 100 * high),
        interval="independent" if paired is None else "paired",
    )


def _runs_of(pattern: str) -> list[FinishedRun]:
    """The finished finetune runs that ``pattern`` names; others that it matches are left out."""
    path = Path(pattern)
    if (path / "run.json").is_file():
        return [read_finished_run(path)]
    matches = [path] if path.is_dir() else _matches(path)
    folders = [
        folder
        for match in matches
        for folder in ([match] if (match / "run.json").is_file() else sorted(match.glob("*/")))
    ]
    finished = [folder for folder in folders if (folder / "result.json").is_file()]
    finetuned = [folder for folder in finished if (folder / "dataset.json").is_file()]
    if not finetuned:
        raise ConfigError(
            f"no finished finetune run at {pattern}",
            expected="a run directory, a folder of runs, or a quoted pattern such as 'runs/a-*'",
            found=f"{counted(len(folders), 'folder')}, {len(finished)} of them finished",
            remedy="list the runs with `distinit runs`",
        )
    return [read_finished_run(folder) for folder in finetuned]


def _matches(pattern: Path) -> list[Path]:
    if not pattern.name:
        return []
    anchor = Path(pattern.anchor)
    return sorted(anchor.glob(str(pattern.relative_to(anchor))))


def _group(name: str, runs: Sequence[FinishedRun]) -> RunGroup:
    return RunGroup(
        name=name,
        runs=tuple(str(run.root) for run in runs),
        top1=_accuracy([100 * run.correct / run.result.videos for run in runs]),
        per_clip=_accuracy([run.result.per_clip for run in runs]),
    )


def _accuracy(values: Sequence[float]) -> Accuracy:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Accuracy(mean=float(np.mean(values)), sd=sd)


def _paired(groups: Sequence[Sequence[FinishedRun]]) -> tuple[float, float] | None:
    """The interval from stored scores, as shares; None if a run has none, or other ones."""
    shares = []
    for group in groups:
        correct = [_correct_by_digest(run) for run in group]
        if any(found is None for found in correct):
            return None
        shares.append(np.mean([found for found in correct if found is not None], axis=0))
    return paired_interval(shares[1] - shares[0]) if len(shares[0]) > 1 else None


def _correct_by_digest(run: FinishedRun) -> NDArray[np.bool_] | None:
    """Whether each test video is classified correctly: [V], in the order of (digest, label)."""
    subset = run.dataset.final_subset
    videos = run.dataset.subset(subset)
    path = run.root / scores_name(run.result.protocol, subset)
    digest = run.dataset.content_digest()
    try:
        correct_V = correct_videos(
            path, videos, run.dataset.undecodable, run.result.average, dataset=digest
        )
    except (ConfigError, StorageError):
        return None
    if int(correct_V.sum()) != run.correct:  # scores of a later evaluation with other settings
        return None
    order = sorted(range(len(videos)), key=lambda v: (videos[v].digest, videos[v].label))
    ordered_V: NDArray[np.bool_] = correct_V[order]
    return ordered_V
