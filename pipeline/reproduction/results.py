"""Turns the results of runs into rows: mean and standard deviation over seeds, the best rate."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from distinit.pipeline.evaluation.intervals import wilson_interval
from distinit.pipeline.reproduction.expand import CellRun, Reproduction, Row
from distinit.schemas.reproduce import Cell, DatasetSource
from distinit.schemas.reproduced import Measured, OurResult, ReproducedRow
from distinit.schemas.run import TOP5_CLASSES, EvaluationResult
from distinit.schemas.wording import counted

__all__ = ["reproduced_row"]

_PAPER_TITLES = {"hmdb51": "HMDB-51", "ucf101": "UCF-101"}


def reproduced_row(
    row: Row,
    reproduction: Reproduction,
    results: Mapping[str, EvaluationResult],
    reasons: Mapping[str, str],
) -> ReproducedRow:
    """A row of a table. ``results`` and ``reasons`` (why there is no result): by step name."""
    cell = row.cell
    groups = {rate: _seeds_of(row.runs, rate, results) for rate in _rates(row.runs)}
    best = max(groups, key=lambda rate: _rank(groups[rate]), default=None)
    chosen = groups.get(best, {})
    ours = _our_result(chosen, row.runs, best, groups) if chosen else None
    source = reproduction.scale.datasets.get(cell.dataset)
    title = source.title if isinstance(source, DatasetSource) else ""
    return ReproducedRow(
        label=cell.label,
        paper_data=_paper_data(cell),
        paper=cell.paper,
        our_data=f"{title}, {_splits_text(ours.splits)}" if ours is not None else "",
        ours=ours,
        note=_note(row, groups, best, reasons),
        shown=next((r.finetuned for r in row.runs if r.rate == best and r.seed in chosen), None),
    )


def _rates(runs: Iterable[CellRun]) -> list[float | None]:
    return list(dict.fromkeys(run.rate for run in runs))


type _Seeds = dict[int, list[EvaluationResult]]
"""Seed -> the results of its splits. Only seeds with all of their splits."""


def _seeds_of(
    runs: Sequence[CellRun], rate: float | None, results: Mapping[str, EvaluationResult]
) -> _Seeds:
    seeds: dict[int, list[str]] = {}
    for run in runs:
        if run.rate == rate:
            seeds.setdefault(run.seed, []).append(run.scored)
    return {
        seed: [results[name] for name in names]
        for seed, names in seeds.items()
        if all(name in results for name in names)
    }


def _rank(seeds: _Seeds) -> tuple[int, float]:
    """Orders the rates of a sweep: most finished seeds first, then the highest top-1."""
    return len(seeds), _measured(seeds, "top1").mean if seeds else 0.0


def _measured(seeds: _Seeds, metric: str) -> Measured:
    values = [
        statistics.fmean(getattr(result, metric) for result in results)
        for results in seeds.values()
    ]
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Measured(mean=statistics.fmean(values), sd=sd)


def _our_result(
    seeds: _Seeds,
    runs: Sequence[CellRun],
    rate: float | None,
    groups: Mapping[float | None, _Seeds],
) -> OurResult:
    results = [result for split_results in seeds.values() for result in split_results]
    return OurResult(
        per_clip=_measured(seeds, "per_clip"),
        top1=_measured(seeds, "top1"),
        top5=_measured(seeds, "top5") if results[0].classes > TOP5_CLASSES else None,
        top1_interval=_interval(results) if len(seeds) == 1 else None,
        chance=100 / results[0].classes,
        seeds=tuple(seeds),
        splits=tuple(dict.fromkeys(run.split for run in runs)),
        learning_rate=rate,
        sweep={
            f"{tried:g}": _measured(found, "top1").mean
            for tried, found in groups.items()
            if tried is not None and found
        },
    )


def _interval(results: Sequence[EvaluationResult]) -> tuple[float, float]:
    """Wilson's 95 % interval over the test videos of all splits, percent."""
    videos = sum(result.videos for result in results)
    correct = sum(round(result.top1 * result.videos / 100) for result in results)
    low, high = wilson_interval(correct, videos)
    return 100 * low, 100 * high


def _paper_data(cell: Cell) -> str:
    if cell.paper == type(cell.paper)():
        return ""
    return f"{_PAPER_TITLES[cell.dataset]}, {'3 splits' if cell.all_splits else 'split 1'}"


def _splits_text(splits: Sequence[int]) -> str:
    return f"split {splits[0]}" if len(splits) == 1 else f"{len(splits)} splits"


def _note(
    row: Row,
    groups: Mapping[float | None, _Seeds],
    rate: float | None,
    reasons: Mapping[str, str],
) -> str:
    if row.absent:
        return f"not at this scale: {row.absent}"
    parts = []
    seeds = groups.get(rate, {})
    if seeds:
        parts.append(counted(len(seeds), "seed"))
    if rate is not None and seeds:
        tried = {r: _measured(g, "top1").mean for r, g in groups.items() if g}
        all_rates = ", ".join(f"{r:g}: {top1:.1f}" for r, top1 in tried.items())
        parts.append(f"LR {rate:g}, the best on the test videos ({all_rates})")
    failed = [run.scored for run in row.runs if run.scored in reasons]
    if failed:
        counts = "" if not seeds else f"{len(failed)} of {counted(len(row.runs), 'run')} missing: "
        parts.append(counts + reasons[failed[0]])
    return "; ".join(parts)
