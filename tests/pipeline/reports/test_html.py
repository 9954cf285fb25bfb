"""Text from a cache is escaped: it never becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.reports.html import data_uri, element, page, table, void_element
from distinit.schemas.wording import printable

HOSTILE = '<script>alert("1")</script>&"\'><img src=x onerror=y>'


class Reader(HTMLParser):
    """Collects tags, attributes and text, as a browser would parse them."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text())
def test_any_text_is_shown_unchanged_except_for_control_characters(text: str) -> None:
    reader = Reader(element("p", text, title=text))
    assert reader.tags == ["p"]
    assert reader.text == printable(text)
    assert reader.attributes == [("title", printable(text))]


def test_elements_nest_without_escaping_twice() -> None:
    assert element("p", element("b", "1 < 2"), 3) == "<p><b>1 &lt; 2</b>3</p>"
    assert void_element("img", alt='"', class_="x") == '<img alt="&quot;" class="x">'


def test_tables_escape_every_cell() -> None:
    reader = Reader(table(HOSTILE, (HOSTILE, "n"), [(HOSTILE, 1)], numeric=[1]))
    assert set(reader.tags) == {"div", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert reader.text == HOSTILE * 2 + "n" + HOSTILE + "1"
    assert reader.attributes.count(("class", "number")) == 2


def test_a_table_without_head_has_row_headers() -> None:
    document = table("c", (), [("name", "value")])
    assert '<tr><th scope="row">name</th><td>value</td></tr>' in document
    assert "thead" not in document


def test_a_page_forbids_scripts_and_external_resources() -> None:
    document = page(HOSTILE, "p{}", element("p", "x"))
    reader = Reader(document)
    assert document.startswith('<!doctype html>\n<html lang="en">')
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in (
        reader.attributes
    )
    assert "script" not in reader.tags


def test_a_data_uri_contains_the_bytes() -> None:
    assert data_uri(b"\x89PNG", "image/png") == "data:image/png;base64,iVBORw=="
