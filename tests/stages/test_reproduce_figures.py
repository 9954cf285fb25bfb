"""Figures of reproduced rows: drawn once per result, or a reason why there is none."""

from __future__ import annotations

from pathlib import Path

from helpers.finished_runs import dataset_of, write_finished
from helpers.progress import RecordingProgress
from helpers.reproductions import expanded

from distinit.pipeline.reproduction.configurations import load_tables
from distinit.pipeline.reproduction.expand import Reproduction
from distinit.pipeline.reproduction.finished import stored_result
from distinit.pipeline.reproduction.layout import Layout
from distinit.pipeline.reproduction.results import reproduced_row
from distinit.schemas.reproduced import ReproducedTable
from distinit.stages.reproduce_figures import with_figure

(FIG7,) = load_tables("fig7")
CONFUSION = {"scratch": [[2, 2], [3, 1]], "DistInit": [[3, 1], [0, 4]]}


def finish(plan: Reproduction, label: str, confusion: list[list[int]]) -> Path:
    """Write the finished run of the row ``label``."""
    row = next(row for row in plan.rows["fig7"] if row.cell.label == label)
    return write_finished(
        plan.layout.run(row.runs[0].finetuned), dataset_of((4, 4)), confusion, protocol="vmz-2"
    )


def drawn(plan: Reproduction) -> tuple[ReproducedTable, list[str]]:
    """The table with its figure, and the messages of drawing it."""
    names = [run.scored for row in plan.rows["fig7"] for run in row.runs]
    found = {name: stored_result(plan.steps[name]) for name in names}
    results = {name: result for name, result in found.items() if result is not None}
    rows = tuple(reproduced_row(row, plan, results, {}) for row in plan.rows["fig7"])
    progress = RecordingProgress()
    table = ReproducedTable(name="fig7", title=FIG7.title, rows=rows)
    return with_figure(FIG7, table, plan, progress), progress.messages


def test_a_figure_is_drawn_again_only_when_a_result_changes(tmp_path: Path) -> None:
    plan = expanded(tables=(FIG7,), layout=Layout(tmp_path / "data", tmp_path))
    for label, confusion in CONFUSION.items():
        finish(plan, label, confusion)
    table, messages = drawn(plan)
    assert (table.figure, table.figure_note) == (str(tmp_path / "figures/fig7/gain.png"), "")
    assert messages == ["drawing fig7"]
    picture = (tmp_path / "figures/fig7/gain.png").read_bytes()
    assert drawn(plan) == (table, [])
    finish(plan, "DistInit", [[4, 0], [4, 0]])
    assert drawn(plan)[1] == ["drawing fig7"]
    assert (tmp_path / "figures/fig7/gain.png").read_bytes() != picture


def test_without_results_the_table_says_why_there_is_no_figure(tmp_path: Path) -> None:
    plan = expanded(tables=(FIG7,), layout=Layout(tmp_path / "data", tmp_path))
    table, messages = drawn(plan)
    assert (table.figure, table.figure_note) == (None, "No figure: no row has a result.")
    assert messages == []
    finish(plan, "scratch", CONFUSION["scratch"])
    table, _ = drawn(plan)
    assert table.figure is None
    assert table.figure_note == "No figure: a gain needs the results of both rows."
    assert not (tmp_path / "figures").exists()
