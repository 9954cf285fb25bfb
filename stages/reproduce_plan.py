"""What `distinit reproduce` would do: runs, hours, bytes and missing inputs. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import Field

from distinit.pipeline.reproduction.estimate import (
    measured_frames_per_second,
    training_frames,
)
from distinit.pipeline.reproduction.expand import Reproduction
from distinit.pipeline.reproduction.finished import is_finished
from distinit.pipeline.reproduction.inputs import Found, find_inputs
from distinit.pipeline.reproduction.space import HOW, disk_space
from distinit.pipeline.reproduction.step import Need, Step
from distinit.schemas.base import Record
from distinit.schemas.wording import counted, one_line

__all__ = ["ReproducePlan", "plan_reproduction"]

_CLIP_FRAMES = 8
_KINDS = ("distill", "finetune", "evaluate")
_LONG_RATE = "give --clips-per-second, clips of 8 frames that your machine trains per second"


class RunCount(Record):
    """Number of runs of one kind."""

    to_do: int = Field(description="not finished")
    finished: int = Field(description="with a result on disk")


class InputState(Record):
    """An input below the data folder."""

    path: str = Field(description="relative to the data folder")
    what: str = Field(description="what it holds")
    usable: bool = Field(description="whether it is there and can be used")
    found: str = Field(description="what is there, or why it cannot be used")
    needed_by: int = Field(description="runs that need it and are not finished")


class AbsentRow(Record):
    """A row that the scale cannot have."""

    table: str = Field(description="name of the table")
    row: str = Field(description="label of the row")
    why: str = Field(description="what the scale does not have")


class ReproducePlan(Record):
    """The work of a reproduction."""

    scale: str = Field(description="title of the scale")
    tables: tuple[str, ...] = Field(description="names of the tables")
    data: str = Field(description="folder with videos, lists and weights")
    out: str = Field(description="folder of caches, stores, runs and results")
    runs: dict[str, RunCount] = Field(description="kind of run -> how many")
    clips: int | None = Field(description="training clips to do; None: depends on the videos")
    frames: int | None = Field(description="training frames to do: clips x frames per clip")
    frames_per_second: float | None = Field(description="training speed; None: not measured")
    speed_from: str = Field(description="where the speed comes from")
    hours: float | None = Field(
        description="hours of training to do, without extraction and evaluation"
    )
    bytes: dict[str, int | None] = Field(description="what -> bytes on disk; None: not known")
    inputs: tuple[InputState, ...] = Field(description="files and folders that are read")
    absent: tuple[AbsentRow, ...] = Field(description="rows that are not possible at this scale")
    steps: dict[str, bool] = Field(description="every step in order -> whether it is finished")

    @property
    def missing(self) -> tuple[InputState, ...]:
        """The inputs that cannot be used."""
        return tuple(state for state in self.inputs if not state.usable)

    def summary(self) -> str:
        """Tables for the terminal."""
        names = ", ".join(self.tables)
        lines = [
            f"{self.scale}: {names}",
            f"data  {one_line(self.data)}",
            f"out   {one_line(self.out)}",
            "",
            f"{'runs':<12}{'to do':>8}{'finished':>10}",
            *(f"{kind:<12}{n.to_do:>8}{n.finished:>10}" for kind, n in self.runs.items()),
            "",
            *self._work_lines(),
            "",
            *self._size_lines(),
            "",
            *self._input_lines(),
        ]
        if self.absent:
            lines += ["", "not at this scale:"]
            lines += [f"  {a.table}, {one_line(a.row)}: {one_line(a.why)}" for a in self.absent]
        return "\n".join(lines)

    def _work_lines(self) -> list[str]:
        if self.clips is None or self.frames is None:
            return ["training    its clips depend on the number of videos"]
        work = f"training    {self.clips:,} clips, {self.frames:,} frames"
        if self.hours is None or self.frames_per_second is None:
            return [work, f"hours       not measured: {_LONG_RATE}"]
        speed = f"{self.frames_per_second / _CLIP_FRAMES:,.1f} clips of {_CLIP_FRAMES} frames/s"
        return [
            work,
            f"hours       {self.hours:,.2f} at {speed} ({one_line(self.speed_from)}), "
            "without extraction and evaluation",
        ]

    def _size_lines(self) -> list[str]:
        rows = [
            f"  {what:<28}{'not known' if size is None else _size(size):>10}"
            for what, size in self.bytes.items()
        ]
        return [f"disk space ({HOW}):", *rows]

    def _input_lines(self) -> list[str]:
        if not self.inputs:
            return ["inputs: none, the data are made by the command"]
        missing = len(self.missing)
        lines = [f"inputs: {missing} of {len(self.inputs)} missing" if missing else "inputs:"]
        for state in sorted(self.inputs, key=lambda state: state.usable):
            mark = "ok" if state.usable else "MISSING"
            needed = f" (needed by {counted(state.needed_by, 'run')})" if not state.usable else ""
            found = f": {one_line(state.found)}" if state.found else ""
            path = one_line(state.path)
            lines.append(f"  {mark:<8}{path}  {one_line(state.what)}{found}{needed}")
        return lines


def plan_reproduction(
    reproduction: Reproduction, *, clips_per_second: float | None = None
) -> ReproducePlan:
    """Count the work and look for the inputs of a reproduction.

    ``clips_per_second``: speed of training on clips of 8 frames; None: that of the finished runs.
    """
    steps = reproduction.steps
    done = {name: is_finished(step) for name, step in steps.items()}
    to_do = [step for name, step in steps.items() if not done[name]]
    found = find_inputs(reproduction)
    frames = training_frames(to_do)
    speed, speed_from = _speed(steps, done, clips_per_second)
    finished = {name for name, is_done in done.items() if is_done}
    clips = [step.clips for step in to_do]
    return ReproducePlan(
        scale=reproduction.scale.title,
        tables=tuple(reproduction.rows),
        data=str(reproduction.layout.data),
        out=str(reproduction.layout.out),
        runs={kind: _count(kind, steps.values(), done) for kind in _KINDS},
        clips=None if None in clips else sum(count for count in clips if count is not None),
        frames=frames,
        frames_per_second=speed,
        speed_from=speed_from,
        hours=None if speed is None or frames is None else frames / speed / 3600,
        bytes=disk_space(reproduction, _corpus_frames(reproduction, found), finished),
        inputs=_states(found, steps, done),
        absent=tuple(
            AbsentRow(table=table, row=row.cell.label, why=row.absent)
            for table, rows in reproduction.rows.items()
            for row in rows
            if row.absent
        ),
        steps=done,
    )


def _count(kind: str, steps: Iterable[Step], done: Mapping[str, bool]) -> RunCount:
    chosen = [done[step.name] for step in steps if step.kind == kind]
    return RunCount(to_do=chosen.count(False), finished=chosen.count(True))


def _speed(
    steps: Mapping[str, Step], done: Mapping[str, bool], clips_per_second: float | None
) -> tuple[float | None, str]:
    """(frames per second or None, where it comes from)."""
    if clips_per_second is not None:
        return clips_per_second * _CLIP_FRAMES, "--clips-per-second"
    measured = measured_frames_per_second(step for name, step in steps.items() if done[name])
    return measured, "" if measured is None else "median of the finished runs"


def _states(
    found: Mapping[Need, Found], steps: Mapping[str, Step], done: Mapping[str, bool]
) -> tuple[InputState, ...]:
    needed = {name: _needs_of(step, steps) for name, step in steps.items()}
    open_runs = [name for name, step in steps.items() if step.kind in _KINDS and not done[name]]
    return tuple(
        InputState(
            path=need.path,
            what=need.what,
            usable=not result.problem,
            found="; ".join(part for part in _parts(result) if part),
            needed_by=sum(need in needed[name] for name in open_runs),
        )
        for need, result in found.items()
    )


def _parts(found: Found) -> tuple[str, ...]:
    videos = "" if found.videos is None else counted(found.videos, "video")
    return (found.problem, videos, found.note)


def _needs_of(step: Step, steps: Mapping[str, Step]) -> set[Need]:
    """The needs of a step and of all steps before it."""
    needs = set(step.needs)
    for name in step.after:
        needs |= _needs_of(steps[name], steps)
    return needs


def _corpus_frames(reproduction: Reproduction, found: Mapping[Need, Found]) -> int | None:
    """Frames of the corpus, if its videos are there and their length is assumed by the scale."""
    corpus = reproduction.scale.corpus
    videos = next((f.videos for need, f in found.items() if need.path == corpus.root), None)
    if videos is None or corpus.frames_per_video is None:
        return None
    return videos * corpus.frames_per_video


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
