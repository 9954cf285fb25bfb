"""Renders the keys of a configuration: a YAML file with comments, or a page of the reference."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pydantic import BaseModel

from distinit.pipeline.config_keys import ConfigKey, keys_of, yaml_value

__all__ = ["reference_page", "yaml_template"]

_WIDTH = 100


def yaml_template(model: type[BaseModel], head: Sequence[str], given: Sequence[str] = ()) -> str:
    """All keys with their defaults, each below a comment; ``--config`` accepts the text.

    Keys without a default have their name in capitals as value. Defaults that depend on other keys
    are comments themselves, so that they follow those keys. ``head``: lines at the top.
    ``given``: optional keys that the command needs all the same; they have capitals too.
    """
    lines = [*(f"# {line}" for line in head), ""]
    for key in keys_of(model):
        lines += _yaml_lines(replace(key, required=key.required or key.name in given), "")
    return "\n".join(lines).rstrip() + "\n"


def reference_page(title: str, model: type[BaseModel], head: Sequence[str]) -> str:
    """A Markdown page with one table for the keys themselves, and one per section below them.

    ``head``: lines at the top, the first of which says how the page was written.
    """
    first, *others = head
    lines = [f"<!-- {first} -->", "", f"# {title}", "", *others, ""]
    lines += _table("", keys_of(model))
    return "\n".join(lines).rstrip() + "\n"


def _yaml_lines(key: ConfigKey, indent: str) -> Iterator[str]:
    """Comment and value of one key, and of those below it."""
    text = "\n".join(_yaml_of(key))
    if key.dependent:
        text = textwrap.indent(text, "# ", lambda line: bool(line) and not line.startswith("#"))
        text = "\n".join(_commented(line) for line in text.splitlines())
    yield from textwrap.indent(text, indent).splitlines()
    if not indent:
        yield ""


def _commented(line: str) -> str:
    return line if line.startswith("# ") or not line else f"# {line}"


def _yaml_of(key: ConfigKey) -> Iterator[str]:
    note = "Required. " if key.required and not key.keys else ""
    comment = f"{note}{key.description} {_facts(key)}".strip()
    yield from textwrap.wrap(
        comment,
        _WIDTH - 8,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    if key.keys and key.is_list and (key.default or key.required):
        yield f"{key.name}:"
        inner = [line for inner in key.keys for line in _yaml_lines(inner, "  ")]
        lines = [line.removeprefix("  ") for line in inner]
        values = [line for line in lines if not line.lstrip().startswith("#")]
        first = next(n for n, line in enumerate(lines) if not line.startswith("#"))
        for number, line in enumerate(lines):
            begin = "  - " if number == first else "    "
            yield f"{begin}{line}"
        for item in range(2, key.least + 1):  # the values in capitals must differ
            for number, line in enumerate(values):
                end = f"_{item}" if line.rpartition(" ")[2].isupper() else ""
                yield f"{'  - ' if number == 0 else '    '}{line}{end}"
    elif key.keys and not key.is_list:
        yield f"{key.name}:"
        for inner_key in key.keys:
            yield from _yaml_lines(inner_key, "  ")
    else:
        value = key.name.upper() if key.required else key.default
        yield f"{key.name}: {yaml_value(value)}"


def _facts(key: ConfigKey) -> str:
    """``(number, more than 0; unit: seconds; paper: 60)``; empty for a section."""
    if key.keys and not key.is_list:
        return ""
    unit = f"unit: {key.unit}" if key.unit not in ("", "-", "none") else ""
    return f"({'; '.join(part for part in (key.type_text, unit, key.source) if part)})"


def _table(prefix: str, keys: Iterable[ConfigKey]) -> list[str]:
    """The table of these keys, then those of the sections below them."""
    listed = list(keys)
    lines = ["| key | type | default | unit | source | meaning |", "|---|---|---|---|---|---|"]
    for key in listed:
        name = f"`{prefix}{key.name}`"
        facts = (key.unit or "-", key.source or "-", key.description)
        cells = (name, key.type_text, _default_text(key), *facts)
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    lines.append("")
    for key in listed:
        if key.keys:
            name = f"{prefix}{key.name}"
            lines += [f"## {name}", ""]
            lines += _table(f"{name}.0." if key.is_list else f"{name}.", key.keys)
    return lines


def _default_text(key: ConfigKey) -> str:
    if key.keys and not (key.is_list or key.default is None):
        return "depends on other keys: see below" if key.dependent else "see below"
    if key.required:
        return "required"
    if key.keys and key.default:
        return "see below"
    value = f"`{yaml_value(key.default)}`"
    return f"{value}, depends on other keys" if key.dependent and not key.keys else value


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
