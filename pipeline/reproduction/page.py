"""The page of a reproduction: every table beside the paper's, with figures and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from distinit.pipeline.reports.html import Markup, data_uri, element, page, table, void_element
from distinit.pipeline.reports.style import STYLE
from distinit.pipeline.reproduction.formats import HEAD, NUMERIC, cells_of
from distinit.schemas.reproduced import ReproducedTable

__all__ = ["reproduction_page"]


def reproduction_page(
    title: str,
    caption: str,
    facts: Mapping[str, str],
    tables: Sequence[ReproducedTable],
    problems: Mapping[str, str],
) -> str:
    """A complete HTML document. ``problems``: run or input -> why it is missing."""
    body = [
        element("header", element("h1", title), element("p", caption)),
        element(
            "dl",
            *(
                element("div", element("dt", name), element("dd", value))
                for name, value in facts.items()
            ),
            class_="facts",
        ),
    ]
    for reproduced in tables:
        body += _section(reproduced, caption)
    if problems:
        body.append(element("h2", "Missing"))
        body.append(table("Runs and inputs without which rows are empty.", (), problems.items()))
    return page(title, STYLE, *body)


def _section(reproduced: ReproducedTable, caption: str) -> list[Markup]:
    parts = [element("h2", f"{reproduced.name}: {reproduced.title}")]
    if reproduced.figure is not None:
        picture = data_uri(Path(reproduced.figure).read_bytes(), "image/png")
        image = void_element("img", src=picture, alt=reproduced.title)
        parts.append(element("figure", image, class_="plot"))
    if reproduced.figure_note:
        parts.append(element("p", reproduced.figure_note))
    rows = [cells_of(row) for row in reproduced.rows]
    parts.append(table(caption, HEAD, rows, numeric=NUMERIC))
    return parts
