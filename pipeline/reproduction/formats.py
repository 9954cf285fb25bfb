"""Writes a reproduced table as Markdown, CSV and LaTeX. All text is escaped for its format."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from distinit.schemas.reproduced import Measured, OurResult, ReproducedRow, ReproducedTable
from distinit.schemas.wording import one_line

__all__ = ["HEAD", "cells_of", "csv_table", "latex_table", "markdown_table", "metric_text"]

HEAD = (
    "",
    *("paper", "per clip", "top-1", "top-5"),
    *("ours", "per clip", "top-1", "top-5"),
    "runs",
)
NUMERIC = (2, 3, 4, 6, 7, 8)
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_NOT_SHOWN = "-"
_MARKDOWN = frozenset("\\`*_[]<>|#~$")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters with which a spreadsheet starts a formula."""


def cells_of(row: ReproducedRow) -> tuple[str, ...]:
    """The columns of HEAD as text; empty where there is nothing, - for a top-5 without meaning."""
    paper = (row.paper.per_clip, row.paper.top1, row.paper.top5)
    return (
        row.label,
        row.paper_data,
        *("" if value is None else f"{value:.1f}" for value in paper),
        row.our_data,
        *_our_texts(row.ours),
        row.note,
    )


def _our_texts(ours: OurResult | None) -> tuple[str, str, str]:
    if ours is None:
        return "", "", ""
    top1 = metric_text(ours.top1)
    if ours.top1_interval is not None:
        low, high = ours.top1_interval
        top1 += f" ({low:.1f} to {high:.1f})"
    top5 = _NOT_SHOWN if ours.top5 is None else metric_text(ours.top5)
    return metric_text(ours.per_clip), top1, top5


def metric_text(metric: Measured) -> str:
    """``43.2``, or ``43.2 ± 0.5`` with the standard deviation over seeds."""
    return f"{metric.mean:.1f}" + ("" if metric.sd is None else f" ± {metric.sd:.1f}")


def markdown_table(table: ReproducedTable, caption: str) -> str:
    """A heading, the caption and the table."""
    rows = [HEAD, *(cells_of(row) for row in table.rows)]
    body = [" | ".join(["", *map(_markdown, row), ""]).strip() for row in rows]
    rule = "|" + "|".join("---:" if n in NUMERIC else "---" for n in range(len(HEAD))) + "|"
    title = _markdown(f"{table.name}: {table.title}")
    return "\n".join([f"## {title}", "", _markdown(caption), "", body[0], rule, *body[1:], ""])


def latex_table(table: ReproducedTable, caption: str) -> str:
    """A ``table`` environment that needs no package."""
    columns = "".join("r" if n in NUMERIC else "l" for n in range(len(HEAD)))
    rows = [cells_of(row) for row in table.rows]
    lines = [" & ".join(map(_latex, row)) + r" \\" for row in rows]
    head = " & ".join(map(_latex, HEAD)) + r" \\"
    text = _latex(f"{table.title}. {caption}")
    begin = [r"\begin{table}", rf"\caption{{{text}}}", rf"\label{{tab:{table.name}}}"]
    begin += [rf"\begin{{tabular}}{{{columns}}}", r"\hline", head, r"\hline"]
    return "\n".join([*begin, *lines, r"\hline", r"\end{tabular}", r"\end{table}", ""])


def csv_table(table: ReproducedTable, scale: str) -> str:
    """One line for the paper's result and one for ours, with all digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("table", "row", "source", "data", "seeds", "splits", "learning_rate")
    metrics = ("per_clip", "per_clip_sd", "top1", "top1_sd", "top1_low", "top1_high")
    writer.writerow((*head, *metrics, "top5", "top5_sd", "chance", "note"))
    for row in table.rows:
        paper = row.paper
        values = (paper.per_clip, None, paper.top1, None, None, None, paper.top5, None, None, "")
        start = (table.name, row.label, "paper", row.paper_data, "", "", None)
        writer.writerow([_csv(value) for value in (*start, *values)])
        writer.writerow([_csv(v) for v in (table.name, row.label, f"ours, {scale}", *_ours(row))])
    return text.getvalue()


def _ours(row: ReproducedRow) -> Sequence[str | float | None]:
    ours = row.ours
    if ours is None:
        return (row.our_data, "", "", *[None] * 10, row.note)
    low, high = ours.top1_interval or (None, None)
    return (
        row.our_data,
        " ".join(map(str, ours.seeds)),
        " ".join(map(str, ours.splits)),
        ours.learning_rate,
        *(ours.per_clip.mean, ours.per_clip.sd),
        *(ours.top1.mean, ours.top1.sd, low, high),
        *((None, None) if ours.top5 is None else (ours.top5.mean, ours.top5.sd)),
        ours.chance,
        row.note,
    )


def _csv(value: str | float | None) -> str | float:
    """A spreadsheet must not take text for a formula."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in _MARKDOWN else c for c in one_line(text))


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in one_line(text))
