"""The shape of the project: one-way imports, a package list that is true, a map of every file.

``python tests/test_architecture.py`` writes the map in ARCHITECTURE.md anew.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAYERS = ("schemas", "pipeline", "stages", "cli")  # each imports itself and those before it
PACKAGES = ("configs", "pipeline", "schemas", "stages")
DOCUMENT = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- file map -->", "<!-- end of file map -->"


def package_files() -> list[Path]:
    """Every module of the installed package, relative to the root."""
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in (ROOT / "cli.py", *files))


def imports_of(path: Path) -> Iterator[str]:
    """Modules that a file imports, at its top or inside of functions."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield node.module or ""


def layer_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", package_files(), ids=str)
def test_imports_run_one_way(path: Path) -> None:
    own = layer_of(path)
    allowed = set() if own == "configs" else set(LAYERS[: LAYERS.index(own) + 1])
    for module in imports_of(path):
        parts = module.split(".")
        assert parts[0] not in {*LAYERS, "configs"}, f"{path} imports {module} without distinit."
        if parts[0] == "distinit":
            assert parts[1] in allowed, f"{path} imports {module}, which is a layer above it"


def test_the_package_list_matches_the_folders() -> None:
    folders = {path.parent for path in package_files() if len(path.parts) > 1}
    found = {"distinit", *(".".join(("distinit", *folder.parts)) for folder in folders)}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found
    for folder in folders:
        assert (ROOT / folder / "__init__.py").is_file(), f"{folder} has no __init__.py"


def test_cli_is_the_only_module_at_the_root() -> None:
    assert [path.name for path in ROOT.glob("*.py")] == ["cli.py"]


def test_the_type_checker_sees_the_package_as_it_is_installed() -> None:
    links = {path.name: path for path in (ROOT / ".typings/distinit").iterdir()}
    assert links.keys() == {"cli.py", *PACKAGES}
    for name, link in links.items():
        assert link.is_symlink()
        assert link.readlink() == Path("../..") / name
        assert link.resolve() == (ROOT / name).resolve()


def file_map() -> str:
    """One line a file: its path and the first line of its docstring."""
    lines = []
    folder = None
    for path in sorted(package_files(), key=lambda path: (len(path.parts) > 1, path.parent, path)):
        docstring = ast.get_docstring(ast.parse((ROOT / path).read_text()))
        if docstring is None and path.name == "__init__.py":
            continue
        assert docstring, f"{path} has no docstring"
        if path.parent != folder:
            folder = path.parent
            lines += ["", f"### {folder.as_posix()}/" if folder.parts else "### the root", ""]
        lines.append(f"- [`{path.name}`]({path.as_posix()}): {docstring.splitlines()[0]}")
    return "\n".join(lines).strip()


def test_the_file_map_is_true() -> None:
    _, _, rest = DOCUMENT.read_text().partition(BEGIN)
    written, end, _ = rest.partition(END)
    assert end, f"ARCHITECTURE.md has no {END}"
    remedy = "run `.venv/bin/python tests/test_architecture.py`"
    assert written.strip().splitlines() == file_map().splitlines(), remedy


def write_file_map() -> None:
    """Replace the map between its two marks."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{file_map()}\n{END}{after}")


if __name__ == "__main__":
    write_file_map()
