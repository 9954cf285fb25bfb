"""The Dockerfile follows the Makefile, and copies nothing that git ignores."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments), with continued lines joined and comments left out."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_base_image_is_the_python_of_the_project_and_the_user_is_not_root() -> None:
    steps = instructions()
    assert steps[0] == ("FROM", f"python:{(ROOT / '.python-version').read_text().strip()}-slim")
    user = steps.index(("USER", "distinit"))
    assert [name for name, _ in steps[:user]] == ["FROM", "RUN"]
    assert "useradd --create-home --uid 1000 distinit" in steps[1][1]


def test_it_installs_what_the_makefile_installs() -> None:
    (synced,) = (rest for name, rest in instructions() if name == "RUN" and "pip sync" in rest)
    makefile = (ROOT / "Makefile").read_text()
    found = re.search(r"uv pip sync (.*)", makefile)
    assert found is not None
    assert set(found[1].split()) <= set(synced.split())
    assert re.findall(r"'uv[^']*'", synced) == re.findall(r"'uv[^']*'", makefile)


def test_the_make_targets_of_the_dockerfile_exist() -> None:
    text = (ROOT / "Dockerfile").read_text()
    used = set(re.findall(r"\bmake ([a-z-]+)", text))
    used.add(json.loads(dict(instructions())["CMD"])[1])
    assert used == {"setup", "demo", "test"}
    assert used <= targets()


def test_what_git_ignores_is_not_copied_into_the_image() -> None:
    ignored = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()}
    left_out = {
        line.removeprefix("**/") for line in (ROOT / ".dockerignore").read_text().split("\n")
    }
    assert ignored <= left_out
