"""Builds HTML: text is escaped unless it is an element already.

Control characters and bidirectional overrides are shown as escapes: see ``wording.one_line``.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

from distinit.schemas.wording import printable

__all__ = ["Markup", "data_uri", "element", "page", "table", "void_element"]


class Markup(str):
    """Text that is HTML already. Only the functions of this module create it."""

    __slots__ = ()


Child = str | int | float


def element(tag: str, *children: Child, **attributes: Child) -> Markup:
    """``<tag ...>children</tag>``. A trailing underscore is dropped: ``class_="figure"``."""
    inner = "".join(map(_safe, children))
    return Markup(f"<{tag}{_attributes(attributes)}>{inner}</{tag}>")


def void_element(tag: str, **attributes: Child) -> Markup:
    """An element without an end tag, such as ``img``."""
    return Markup(f"<{tag}{_attributes(attributes)}>")


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[Child]], numeric: Iterable[int] = ()
) -> Markup:
    """A table with a caption; the columns in ``numeric`` (from 0) are aligned right.

    If ``head`` is empty, the first cell of each row is the header of the row.
    """
    right = set(numeric)

    def cell(tag: str, index: int, value: Child, **attributes: Child) -> Markup:
        if index in right:
            attributes["class_"] = "number"
        return element(tag, value, **attributes)

    def body_row(row: Sequence[Child]) -> Markup:
        cells = [cell("td", index, value) for index, value in enumerate(row)]
        if not head:
            cells[0] = cell("th", 0, row[0], scope="row")
        return element("tr", *cells)

    header = element("tr", *(cell("th", i, name, scope="col") for i, name in enumerate(head)))
    parts = [element("caption", caption), element("tbody", *map(body_row, rows))]
    if head:
        parts.insert(1, element("thead", header))
    return element("div", element("table", *parts), class_="scroll")


def data_uri(data: bytes, mime: str) -> str:
    """A data URI with the given bytes, so that a page needs no other file."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def page(title: str, style: str, *body: Markup) -> str:
    """A complete document. Its content security policy forbids scripts and external resources."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = element(
        "head",
        void_element("meta", charset="utf-8"),
        void_element("meta", **{"http-equiv": "Content-Security-Policy", "content": policy}),
        void_element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        void_element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(style)),
    )
    document = element("html", head, element("body", element("main", *body)), lang="en")
    return f"<!doctype html>\n{document}\n"


def _safe(value: Child) -> str:
    return value if isinstance(value, Markup) else html.escape(printable(value), quote=True)


def _attributes(attributes: dict[str, Child]) -> str:
    return "".join(f' {name.rstrip("_")}="{_safe(value)}"' for name, value in attributes.items())
