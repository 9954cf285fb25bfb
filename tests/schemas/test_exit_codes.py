"""The exit codes, and the page that documents them."""

from __future__ import annotations

import re
from pathlib import Path

from distinit.schemas import errors
from distinit.schemas.exit_codes import ExitCode

PAGE = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text()


def test_the_codes_are_those_of_the_page() -> None:
    documented = dict(re.findall(r"^\| (\d+) \| ([A-Z]+) \|", PAGE, re.M))
    assert documented == {str(int(code)): code.name for code in ExitCode}
    values = {code.name: int(code) for code in ExitCode}
    assert values == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "INCOMPLETE": 3,
        "INTERRUPTED": 130,
        "TERMINATED": 143,
    }


def subclasses(kind: type[errors.DistInitError]) -> set[type[errors.DistInitError]]:
    found = {kind for kind in kind.__subclasses__() if kind.__module__ == errors.__name__}
    return {kind}.union(*(subclasses(child) for child in found))


def test_every_error_has_the_code_of_the_page() -> None:
    documented = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE, re.M))
    kinds = subclasses(errors.DistInitError)
    assert documented == {kind.__name__: str(int(kind.exit_code)) for kind in kinds}
    assert {kind.exit_code for kind in kinds} == {ExitCode.FAILED, ExitCode.USAGE}
