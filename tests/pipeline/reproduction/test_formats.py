"""Markdown, CSV, LaTeX and HTML: exact lines, and text that cannot change its document."""

from __future__ import annotations

import csv
import io

from distinit.pipeline.reproduction.formats import csv_table, latex_table, markdown_table
from distinit.pipeline.reproduction.page import reproduction_page
from distinit.schemas.reproduce import PaperResult
from distinit.schemas.reproduced import Measured, OurResult, ReproducedRow, ReproducedTable

HOSTILE = "50 % & <b>_x_</b> | $a^2$ #1 ~ {c} \\d `e`\x1b[31m"


def table(label: str = "scratch", note: str = "3 seeds") -> ReproducedTable:
    ours = OurResult(
        per_clip=Measured(mean=40.04, sd=0.25),
        top1=Measured(mean=43.21, sd=0.5),
        top5=Measured(mean=70.0, sd=1.0),
        top1_interval=None,
        chance=10.0,
        seeds=(0, 1, 2),
        splits=(1,),
    )
    row = ReproducedRow(
        label=label,
        paper_data="HMDB-51, split 1",
        paper=PaperResult(per_clip=24.6, top1=25.4),
        our_data="films, split 1",
        ours=ours,
        note=note,
    )
    one = ours.model_copy(
        update={"top1": Measured(mean=43.21), "top1_interval": (40.0, 46.0), "seeds": (0,)}
    )
    rows = (row, row.model_copy(update={"label": "other", "ours": one}))
    none = row.model_copy(update={"label": "none", "ours": None, "our_data": ""})
    return ReproducedTable(name="table1", title="Inits", rows=(*rows, none))


def test_markdown_has_our_row_beside_the_papers() -> None:
    lines = markdown_table(table(), "Ours: small scale.").splitlines()
    assert lines[0] == "## table1: Inits"
    assert lines[2] == "Ours: small scale."
    assert lines[6] == (
        "| scratch | HMDB-51, split 1 | 24.6 | 25.4 |  | films, split 1 | 40.0 ± 0.2 | 43.2 ± 0.5 "
        "| 70.0 ± 1.0 | 3 seeds |"
    )
    assert "| 43.2 (40.0 to 46.0) |" in lines[7]
    assert lines[8] == "| none | HMDB-51, split 1 | 24.6 | 25.4 |  |  |  |  |  | 3 seeds |"


def test_top5_of_up_to_five_classes_is_not_shown() -> None:
    shown = table()
    ours = shown.rows[0].ours
    assert ours is not None
    row = shown.rows[0].model_copy(update={"ours": ours.model_copy(update={"top5": None})})
    few = shown.model_copy(update={"rows": (row,)})
    assert markdown_table(few, "Ours.").splitlines()[6] == (
        "| scratch | HMDB-51, split 1 | 24.6 | 25.4 |  | films, split 1 | 40.0 ± 0.2 | 43.2 ± 0.5 "
        "| - | 3 seeds |"
    )
    assert " & 43.2 $\\pm$ 0.5 & - & 3 seeds \\\\\n" in latex_table(few, "Ours.")
    line = list(csv.DictReader(io.StringIO(csv_table(few, "smoke"))))[1]
    assert (line["top1"], line["top5"], line["top5_sd"], line["chance"]) == (
        "43.21",
        "",
        "",
        "10.0",
    )
    assert '<td class="number">-</td>' in reproduction_page("Title", "Ours.", {}, (few,), {})


def test_latex_is_a_table_environment() -> None:
    text = latex_table(table(), "Ours: small scale.")
    assert "\\caption{Inits. Ours: small scale.}\n" in text
    assert (
        "scratch & HMDB-51, split 1 & 24.6 & 25.4 &  & films, split 1 & 40.0 $\\pm$ 0.2 & "
        "43.2 $\\pm$ 0.5 & 70.0 $\\pm$ 1.0 & 3 seeds \\\\\n" in text
    )
    assert text.startswith("\\begin{table}\n")
    assert text.endswith("\\end{table}\n")


def test_csv_has_one_line_for_the_paper_and_one_for_us() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_table(table(), "small scale"))))
    assert [row["source"] for row in rows] == ["paper", "ours, small scale"] * 3
    paper, ours, one = rows[0], rows[1], rows[3]
    assert (paper["per_clip"], paper["top1"], paper["top5"]) == ("24.6", "25.4", "")
    assert (ours["top1"], ours["top1_sd"], ours["seeds"]) == ("43.21", "0.5", "0 1 2")
    assert (one["top1_low"], one["top1_high"], one["top1_sd"]) == ("40.0", "46.0", "")
    assert (rows[5]["top1"], rows[5]["note"]) == ("", "3 seeds")


def test_markdown_and_latex_escape_all_their_specials() -> None:
    hostile = table(label=HOSTILE, note=HOSTILE)
    line = markdown_table(hostile, HOSTILE).splitlines()[6]
    assert line.startswith(
        "| 50 % & \\<b\\>\\_x\\_\\</b\\> \\| \\$a^2\\$ \\#1 \\~ {c} \\\\d \\`e\\`\\\\x1b\\[31m | "
    )
    text = latex_table(hostile, HOSTILE)
    escaped = (
        r"50 \% \& $<$b$>$\_x\_$<$/b$>$ \textbar{} \$a\textasciicircum{}2\$ \#1 "
        r"\textasciitilde{} \{c\} \textbackslash{}d `e`\textbackslash{}x1b[31m"
    )
    assert text.count(escaped) == 5  # caption, label, a note per row
    assert "\x1b" not in text


def test_a_spreadsheet_takes_no_cell_for_a_formula() -> None:
    text = csv_table(table(label="=HYPERLINK(1)", note="-1\n+2"), "@scale")
    row = list(csv.DictReader(io.StringIO(text)))[1]
    assert row["row"] == "'=HYPERLINK(1)"
    assert row["note"] == "'-1\\n+2"


def test_the_page_escapes_text_and_lists_what_is_missing() -> None:
    page = reproduction_page(
        HOSTILE, "Ours.", {"scale": "small"}, (table(label=HOSTILE),), {"run": HOSTILE}
    )
    assert "<b>" not in page
    assert "\x1b" not in page
    assert page.count("50 % &amp; &lt;b&gt;_x_&lt;/b&gt;") == 4  # title, h1, row, missing
    assert "<td>films, split 1</td>" in page
    assert '<td class="number">43.2 ± 0.5</td>' in page
