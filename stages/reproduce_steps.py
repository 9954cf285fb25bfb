"""Executes the steps of a reproduction in order. One that fails does not stop the others."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from distinit.pipeline.progress import Progress
from distinit.pipeline.reproduction.builder import teacher_needs
from distinit.pipeline.reproduction.expand import Reproduction
from distinit.pipeline.reproduction.finished import is_finished
from distinit.pipeline.reproduction.inputs import Found, find_inputs, read_corpus_listing
from distinit.pipeline.reproduction.moving_digits import make_moving_digits
from distinit.pipeline.reproduction.step import Need, Step
from distinit.pipeline.storage import write_text
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ComputeError, DistInitError
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.finetune import EvaluateConfig, FinetuneConfig
from distinit.schemas.frames import FlowConfig, FramesConfig
from distinit.schemas.reproduce import MakeDataConfig
from distinit.schemas.wording import counted
from distinit.stages.distill import distill
from distinit.stages.evaluate import evaluate
from distinit.stages.extract import extract
from distinit.stages.finetune import finetune
from distinit.stages.flow import build_flow
from distinit.stages.frames import build_frames

__all__ = ["Outcome", "run_steps"]

_HELD_OUT = 50
"""One labelled video of the corpus in this many, per class, is for testing."""


@dataclass
class Outcome:
    """What became of each step."""

    failed: dict[str, str] = field(default_factory=dict)
    """Step -> error."""
    blocked: dict[str, str] = field(default_factory=dict)
    """Step -> the missing input or earlier step that it needs."""
    reused: list[str] = field(default_factory=list)
    """Training runs that had been finished before."""
    trained: list[str] = field(default_factory=list)
    """Training runs that were finished now."""


def run_steps(reproduction: Reproduction, progress: Progress) -> Outcome:
    """Execute every step whose inputs exist; finished runs are only checked.

    A step that fails is recorded, and the others go on.
    """
    outcome = Outcome()
    missing = _missing_inputs(reproduction)
    steps = _with_present_teachers(reproduction, missing)
    done = {name for name, step in steps.items() if is_finished(step)}
    wanted = _unfinished(steps, done)
    ready = set(done)
    for number, (name, step) in enumerate(steps.items(), start=1):
        why = _blocked(step, missing, outcome)
        # Data that only finished runs have used may have been deleted.
        if name in done and not why and ready.issuperset(step.after):
            _attempt(step, reproduction, progress, outcome, finished=True)
        elif name in wanted and why:
            outcome.blocked[name] = why
            progress.message(f"{name}: {why}")
        elif name in wanted:
            progress.message(f"[{number}/{len(steps)}] {name}")
            if _attempt(step, reproduction, progress, outcome, finished=False):
                ready.add(name)
        if step.kind in ("distill", "finetune") and name not in outcome.failed | outcome.blocked:
            (outcome.reused if name in done else outcome.trained).append(name)
    return outcome


def _unfinished(steps: Mapping[str, Step], done: Collection[str]) -> set[str]:
    """The unfinished runs, and the unfinished steps that they need."""
    wanted: set[str] = set()
    for name, step in reversed(list(steps.items())):
        is_run = step.kind in ("distill", "finetune", "evaluate")
        if name not in done and (is_run or name in wanted):
            wanted |= {name, *step.after}
    return wanted - set(done)


def _attempt(
    step: Step,
    reproduction: Reproduction,
    progress: Progress,
    outcome: Outcome,
    *,
    finished: bool,
) -> bool:
    """Execute a step; an error is recorded. Whether there was none."""
    try:
        _execute(step, reproduction, progress, finished=finished)
    except (DistInitError, RuntimeError, OSError, MemoryError) as error:
        progress.finish()
        outcome.failed[step.name] = _reason(error)
        progress.message(f"failed: {step.name}: {outcome.failed[step.name]}")
        return False
    return True


def _missing_inputs(reproduction: Reproduction) -> dict[Need, Found]:
    found = find_inputs(reproduction)
    return {need: result for need, result in found.items() if result.problem}


def _with_present_teachers(
    reproduction: Reproduction, missing: dict[Need, Found]
) -> dict[str, Step]:
    present = {
        role: missing.keys().isdisjoint(teacher_needs(role, source))
        for role, source in reproduction.teachers.items()
    }
    return reproduction.builder.with_teachers(present)


def _blocked(step: Step, missing: dict[Need, Found], outcome: Outcome) -> str:
    """Why a step cannot be executed; empty if it can."""
    reasons = [
        f"needs {need.path} ({need.what}): {missing[need].problem}"
        for need in step.needs
        if need in missing
    ]
    for name in step.after:
        if name in outcome.failed:
            reasons.append(f"needs {name}, which failed: {outcome.failed[name]}")
        elif name in outcome.blocked:
            reasons.append(outcome.blocked[name])
    return "; ".join(dict.fromkeys(reasons))


def _reason(error: Exception) -> str:
    """One line about an error: what was found, and what to do."""
    if not isinstance(error, DistInitError):
        return f"{type(error).__name__}: {error}"
    found = "" if error.found is None else f": {error.found}"
    return f"{error.problem}{found}" + (f" (to do: {error.remedy})" if error.remedy else "")


def _execute(step: Step, reproduction: Reproduction, progress: Progress, *, finished: bool) -> None:
    """Call the stage of a step. Stages check finished work themselves, and resume the rest."""
    config = step.config
    if isinstance(config, ExtractConfig):
        _extract(config, reproduction, progress)
    elif isinstance(config, DistillConfig):
        distill(config, progress=progress)
    elif isinstance(config, FinetuneConfig):
        finetune(config, progress=progress)
    elif finished:
        return
    elif isinstance(config, MakeDataConfig):
        make_moving_digits(Path(config.out), progress)
    elif isinstance(config, FramesConfig):
        build_frames(config, progress=progress)
    elif isinstance(config, FlowConfig):
        build_flow(config, progress=progress)
    elif isinstance(config, EvaluateConfig):
        evaluate(config, progress=progress)


def _extract(config: ExtractConfig, reproduction: Reproduction, progress: Progress) -> None:
    listing = reproduction.scale.corpus.listing
    if listing is not None and config.videos == str(reproduction.layout.corpus_list):
        _write_corpus_list(listing, reproduction, progress)
    result = extract(config, progress=progress)
    if not result.complete:
        raise ComputeError(
            f"the target cache {config.cache} is not complete",
            found="; ".join(result.missing),
            remedy="rerun the same command to resume",
        )


def _write_corpus_list(name: str, reproduction: Reproduction, progress: Progress) -> None:
    """Write the listed videos that exist, and their labels with some held out for testing."""
    layout, corpus = reproduction.layout, reproduction.scale.corpus
    root = layout.data / corpus.root
    listing = read_corpus_listing(layout.data / name, root)
    if listing.missing:
        absent = counted(len(listing.missing), "listed video")
        progress.message(f"{corpus.title}: {absent} missing and left out")
    paths = [str((root / path).resolve()) for path, _ in listing.present]
    write_text(layout.corpus_list, "".join(f"{path}\n" for path in paths))
    text, seen = io.StringIO(), dict[str, int]()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "split"))
    for path, label in listing.present:
        number = seen[label] = seen.get(label, -1) + 1
        writer.writerow((path, label, "train" if number % _HELD_OUT else "test"))
    write_text(layout.corpus_labels, text.getvalue())
