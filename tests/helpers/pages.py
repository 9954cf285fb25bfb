"""Runs the examples of a documentation page: commands, and Python sessions with their output."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from distinit.cli import main

_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_page(page: Path) -> int:
    """Run all blocks in order, in the working folder; returns the number of Python examples.

    Raises AssertionError with doctest's report if an example prints something else.
    """
    names: dict[str, Any] = {}
    count = 0
    for language, code in _BLOCK.findall(page.read_text()):
        if language == "sh":
            for line in code.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "distinit"
                result = CliRunner().invoke(main, arguments)
                assert result.exit_code == 0, result.output
        else:
            count += _run_session(code, names, page.name)
    return count


def marked_block(page: Path, marker: str) -> str:
    """The code block that follows ``<!-- newcomer: marker -->`` on the page."""
    found = re.search(
        rf"^<!-- newcomer: {marker} -->\n```\w+\n(.*?)^```$",
        page.read_text(),
        re.MULTILINE | re.DOTALL,
    )
    assert found is not None, f"{page} has no block <!-- newcomer: {marker} -->"
    return found[1]


def _run_session(code: str, names: dict[str, Any], page: str) -> int:
    test = doctest.DocTestParser().get_doctest(code, names, page, page, 0)
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=report.append, clear_globs=False)
    assert not report, "".join(report)
    names.update(test.globs)
    return len(test.examples)
