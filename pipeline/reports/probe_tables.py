"""The tables of a probe: a Markdown page for people, and a CSV with one line per number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from distinit.schemas.probe import Measures, ProbeResult, ProbeRow
from distinit.schemas.wording import one_line

__all__ = ["csv_table", "markdown_page"]

_COLUMNS = ("features", "kind", "measure", "setting", "percent", "low", "high", "sd")


def markdown_page(result: ProbeResult) -> str:
    """The main table, what each row is, and the accuracies of kNN for every k and T."""
    rows = result.table(short_names=False)
    lines = ["# Probe of frozen features", "", *_table(rows), ""]
    lines += [f"- {_escaped(note)}" for note in result.notes()]
    lines += ["", "![accuracies](probe.png)", "", "## Rows", ""]
    lines += _table([["features", "what they are", "width", "chosen LR, weight decay"]])
    lines += [_line(_described(row)) for row in result.rows]
    measured = [row for row in result.rows if row.measures is not None]
    if measured:
        lines += ["", "## kNN (top-1, percent)", "", *_table(_knn(measured))]
    return "\n".join(lines) + "\n"


def _described(row: ProbeRow) -> list[str]:
    measures = row.measures
    if measures is None:
        return [row.name, row.missing, "-", "-"]
    chosen = f"{measures.learning_rate:g}, {measures.weight_decay:g}"
    return [row.name, row.features, str(row.feature_dim), chosen]


def _knn(rows: list[ProbeRow]) -> list[list[str]]:
    scores = [[] if row.measures is None else list(row.measures.knn) for row in rows]
    head = [f"k {score.k}, T {score.temperature:g}" for score in scores[0]]
    return [
        ["features", *head],
        *([row.name, *map(str, of_row)] for row, of_row in zip(rows, scores, strict=True)),
    ]


def _table(rows: list[list[str]]) -> list[str]:
    head, *body = rows
    return [_line(head), "|---" * len(head) + "|", *map(_line, body)]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    """Names are arbitrary: none may end a cell or become a link, a tag or emphasis."""
    plain = one_line(text)
    return "".join(f"\\{letter}" if letter in "\\|*_`[]<>$" else letter for letter in plain)


def csv_table(result: ProbeResult) -> str:
    """One line per number, with its 95 % interval or the standard deviation over draws."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in result.rows:
        if row.measures is None:
            missing = ["missing", one_line(row.missing), *[None] * 4]
            writer.writerow([one_line(row.name), row.kind, *missing])
            continue
        for cells in _numbers(row.measures):
            writer.writerow([one_line(row.name), row.kind, *cells])
    return text.getvalue()


def _numbers(measures: Measures) -> Iterator[tuple[object, ...]]:
    """(measure, setting, percent, low, high, sd)."""
    for score in measures.knn:
        setting = f"k={score.k} T={score.temperature:g}"
        yield ("knn", setting, score.top1, *score.interval, None)
    for k, percent in measures.retrieval.items():
        yield ("retrieval", f"k={k}", percent, None, None, None)
    chosen = f"LR={measures.learning_rate:g} WD={measures.weight_decay:g}"
    yield ("linear", chosen, measures.linear.top1, *measures.linear.interval, None)
    for few in measures.low_shot:
        shots = "all" if few.shots is None else few.shots
        yield ("low shot", f"n={shots}", few.top1_mean, None, None, few.top1_sd)
