"""Fills the tables of the paper: runs what is missing, and sets our results beside the paper's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import Field

from distinit.pipeline.output_paths import refuse_inside_data
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.reproduction.configurations import load_scale, load_tables
from distinit.pipeline.reproduction.expand import Choice, Reproduction, expand
from distinit.pipeline.reproduction.finished import stored_result
from distinit.pipeline.reproduction.formats import (
    csv_table,
    latex_table,
    markdown_table,
    metric_text,
)
from distinit.pipeline.reproduction.layout import Layout
from distinit.pipeline.reproduction.page import reproduction_page
from distinit.pipeline.reproduction.results import reproduced_row
from distinit.pipeline.storage import storage_errors, write_text
from distinit.schemas.base import Record
from distinit.schemas.exit_codes import ExitCode
from distinit.schemas.reproduce import ReproduceConfig, ScaleConfig
from distinit.schemas.reproduced import ReproducedTable
from distinit.schemas.run import EvaluationResult
from distinit.schemas.wording import counted, one_line
from distinit.stages.reproduce_figures import with_figure
from distinit.stages.reproduce_steps import Outcome, run_steps

__all__ = ["ReproduceResult", "open_reproduction", "reproduce"]


class ReproduceResult(Record):
    """The tables, and what is missing from them."""

    page: str = Field(description="path of the HTML page; the tables are next to it")
    caption: str = Field(description="what our results are")
    machine: str = Field(description="CPU cores and GPUs of this machine")
    tables: tuple[ReproducedTable, ...] = Field(description="the requested tables, with our rows")
    failed: dict[str, str] = Field(description="step -> error")
    blocked: dict[str, str] = Field(
        description="step -> the input or earlier step that it needs and that is missing"
    )
    reused: int = Field(description="training runs that had been finished before")
    trained: int = Field(description="training runs that were finished now")

    @property
    def exit_code(self) -> ExitCode:
        """0: every possible row has its result; 1: a step failed; 3: an input is missing."""
        if self.failed:
            return ExitCode.FAILED
        return ExitCode.INCOMPLETE if self.blocked else ExitCode.OK

    def summary(self) -> str:
        """Every table, then failures, then the path of the page."""
        lines = [one_line(self.caption), ""]
        for table in self.tables:
            lines += [*_table_lines(table), ""]
        counts = f"{counted(self.trained, 'run')} finished now, {self.reused} reused"
        lines.append(counts)
        for title, problems in (("failed:", self.failed), ("not run:", self.blocked)):
            if problems:
                lines.append(title)
                lines += [f"  {one_line(n)}: {one_line(why)}" for n, why in problems.items()]
        return "\n".join([*lines, f"page    {one_line(self.page)}"])


def open_reproduction(config: ReproduceConfig) -> Reproduction:
    """The runs of every row of the requested tables. Nothing is written. Raises ConfigError."""
    refuse_inside_data(Path(config.out))
    scale = load_scale(config.scale, config.settings)
    out = Path(config.out)
    layout = Layout(Path(config.data) if config.data is not None else out / "data", out)
    choice = Choice(config.splits, config.seeds)
    return expand(
        load_tables(config.table), scale, layout, choice, listed=_is_listed(scale, layout)
    )


def reproduce(config: ReproduceConfig, *, progress: Progress | None = None) -> ReproduceResult:
    """Run every step that is not finished, and write the page and the tables below ``out``.

    A step that fails does not stop the others. A killed call resumes where it stopped. Raises
    ConfigError for an invalid table, scale or setting, and StorageError.
    """
    progress = progress or NullProgress()
    reproduction = open_reproduction(config)
    with storage_errors(Path(config.out)):
        Path(config.out).mkdir(parents=True, exist_ok=True)
    outcome = run_steps(reproduction, progress)
    results = _results(reproduction, outcome)
    reasons = {**outcome.failed, **outcome.blocked}
    tables = tuple(
        _table(name, reproduction, results, reasons, progress) for name in reproduction.rows
    )
    caption = _caption(reproduction.scale)
    machine = _machine()
    result = ReproduceResult(
        page=str(reproduction.layout.out / "index.html"),
        caption=caption,
        machine=machine,
        tables=tables,
        failed=dict(outcome.failed),
        blocked=dict(outcome.blocked),
        reused=len(outcome.reused),
        trained=len(outcome.trained),
    )
    _write_results(result, reproduction)
    return result


def _is_listed(scale: ScaleConfig, layout: Layout) -> bool:
    """Whether the corpus has its list, or will have it once its data are made."""
    listing = scale.corpus.listing
    if listing is None:
        return False
    return scale.make_data is not None or (layout.data / listing).is_file()


def _results(reproduction: Reproduction, outcome: Outcome) -> dict[str, EvaluationResult]:
    """Step -> the metrics of the runs that rows show."""
    names = {run.scored for rows in reproduction.rows.values() for row in rows for run in row.runs}
    bad = outcome.failed.keys() | outcome.blocked.keys()
    found = {name: stored_result(reproduction.steps[name]) for name in sorted(names - bad)}
    return {name: result for name, result in found.items() if result is not None}


def _table(
    name: str,
    reproduction: Reproduction,
    results: Mapping[str, EvaluationResult],
    reasons: Mapping[str, str],
    progress: Progress,
) -> ReproducedTable:
    config = next(table for table in reproduction.tables if table.name == name)
    rows = reproduction.rows[name]
    reproduced = ReproducedTable(
        name=name,
        title=config.title,
        rows=tuple(reproduced_row(row, reproduction, results, reasons) for row in rows),
    )
    if config.figure is None:
        return reproduced
    return with_figure(config, reproduced, reproduction, progress)


def _caption(scale: ScaleConfig) -> str:
    compared = "" if scale.comparable else ": not comparable with the paper's results"
    return f"Ours: {scale.title}, corpus {scale.corpus.title}{compared}."


def _machine() -> str:
    cores = f"{os.cpu_count()} CPU cores"
    if not torch.cuda.is_available():
        return cores
    return f"{cores}, {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"


def _write_results(result: ReproduceResult, reproduction: Reproduction) -> None:
    out, scale = reproduction.layout.out, reproduction.scale
    caption = f"{result.caption} Machine: {result.machine}."
    for table in result.tables:
        chance = {f"{row.ours.chance:.1f}" for row in table.rows if row.ours is not None}
        text = f"{caption} Chance: {', '.join(sorted(chance))}." if chance else caption
        folder = out / "tables"
        write_text(folder / f"{table.name}.md", markdown_table(table, text))
        write_text(folder / f"{table.name}.tex", latex_table(table, text))
        write_text(folder / f"{table.name}.csv", csv_table(table, scale.title))
    facts = {
        "scale": scale.title,
        "machine": result.machine,
        "corpus": scale.corpus.title,
        "runs": str(result.reused + result.trained),
    }
    problems = {**result.failed, **result.blocked}
    title = f"DistInit, reproduced: {scale.title}"
    write_text(Path(result.page), reproduction_page(title, caption, facts, result.tables, problems))


def _table_lines(table: ReproducedTable) -> list[str]:
    lines = [f"{table.name}: {table.title}", f"  {'':<44}{'paper':>8}{'ours':>16}  top-1, percent"]
    for row in table.rows:
        paper = "" if row.paper.top1 is None else f"{row.paper.top1:.1f}"
        ours = "" if row.ours is None else metric_text(row.ours.top1)
        lines.append(f"  {one_line(row.label):<44}{paper:>8}{ours:>16}  {one_line(row.note)}")
    return lines
