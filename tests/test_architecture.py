"""The structure of the project: imports, the package list, size limits, the map of every file.

``python tests/test_architecture.py`` rewrites the map in ARCHITECTURE.md.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from textwrap import indent

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAYERS = ("schemas", "pipeline", "stages", "cli")  # each imports itself and those before it
PACKAGES = ("configs", "pipeline", "schemas", "stages")
ROOT_MODULES = ("__init__.py", "__main__.py", "cli.py")
DOCUMENT = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- file map -->", "<!-- end of file map -->"
FILE_LINES = 400
FUNCTION_LINES = 60  # from ``def`` to the last line, docstring and comments included


def package_files() -> list[Path]:
    """Every module of the installed package, relative to the root."""
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    roots = [ROOT / name for name in ROOT_MODULES]
    return sorted(path.relative_to(ROOT) for path in (*roots, *files))


def all_files() -> list[Path]:
    """Every Python file of the repository: the package, examples, benchmarks and tests."""
    folders = ("benchmarks", "examples", "tests")
    others = [path for name in folders for path in (ROOT / name).rglob("*.py")]
    return [*package_files(), *sorted(path.relative_to(ROOT) for path in others)]


def imports_of(source: str) -> Iterator[tuple[str, str]]:
    """(module, name imported from it or "") of each import, at the top or inside of functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((name.name, "") for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno} is a relative import"
            yield from ((node.module or "", name.name) for name in node.names)


def module_of(path: Path) -> str:
    """``distinit.pipeline.video`` for ``pipeline/video/__init__.py``."""
    parts = path.with_suffix("").parts
    return ".".join(("distinit", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def import_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """The modules among ``sources`` (source code by module name) that each of them imports.

    ``if TYPE_CHECKING`` counts as well: what needs another module's types depends on it.
    """
    graph = {}
    for module, source in sources.items():
        found = {
            whole if (whole := f"{parent}.{name}") in sources else parent
            for parent, name in imports_of(source)
        }
        graph[module] = (found & sources.keys()) - {module}
    return graph


def folder_graph(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same with the folders of pipeline/ in the place of their modules."""
    folders: dict[str, set[str]] = {}
    for module, imported in graph.items():
        own = folder_of(module)
        folders.setdefault(own, set()).update({folder_of(name) for name in imported} - {own})
    return folders


def folder_of(module: str) -> str:
    """``distinit.pipeline.video`` for ``distinit.pipeline.video.views``; others are themselves."""
    return ".".join(module.split(".")[:3])


def import_cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules of which each imports the next and the last is the first; empty if none do."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))  # graphlib lists it against the edges
    return []


def long_functions(source: str) -> list[str]:
    """``name (lines)`` of the functions that are longer than FUNCTION_LINES."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > FUNCTION_LINES:
                found.append(f"{node.name} ({lines} lines)")
    return found


def layer_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", package_files(), ids=str)
def test_imports_run_one_way(path: Path) -> None:
    own = layer_of(path)
    if own in LAYERS:
        allowed = set(LAYERS[: LAYERS.index(own) + 1])
    else:  # ``__init__`` names what is public, ``__main__`` runs the command, configs is data
        allowed = {"__init__": {"schemas", "pipeline"}, "__main__": {"cli"}}.get(own, set())
    for module, _ in imports_of((ROOT / path).read_text()):
        parts = module.split(".")
        assert parts[0] not in {*LAYERS, "configs"}, f"{path} imports {module} without distinit."
        if parts[0] == "distinit":
            assert parts[1] in allowed, f"{path} imports {module}, which is a layer above it"


def test_no_module_imports_itself_through_others() -> None:
    sources = {module_of(path): (ROOT / path).read_text() for path in package_files()}
    graph = import_graph(sources)
    assert sum(map(len, graph.values())) > len(graph), "imports must be found to be judged"
    assert import_cycle(graph) == []
    assert import_cycle(folder_graph(graph)) == [], "folders of pipeline/ import each other"


MADE_UP = {
    "distinit.pipeline.a.one": "def f():\n    from distinit.pipeline.b import two",
    "distinit.pipeline.b.two": "import distinit.schemas.three",
    "distinit.schemas.three": "import os",
    "distinit.pipeline.b.four": "from distinit.pipeline.a.one import f",
}
FOR_TYPES = "if TYPE_CHECKING:\n    from distinit.pipeline.a.one import f"


def test_a_cycle_of_folders_is_found() -> None:
    graph = import_graph(MADE_UP)
    assert graph["distinit.pipeline.a.one"] == {"distinit.pipeline.b.two"}
    assert import_cycle(graph) == []
    assert set(import_cycle(folder_graph(graph))) == {"distinit.pipeline.a", "distinit.pipeline.b"}


def test_a_cycle_of_modules_is_found_and_named_in_order() -> None:
    graph = import_graph(MADE_UP | {"distinit.schemas.three": FOR_TYPES})
    cycle = import_cycle(graph)
    assert set(cycle) == MADE_UP.keys() - {"distinit.pipeline.b.four"}
    assert cycle[0] == cycle[-1]
    assert all(later in graph[module] for module, later in pairwise(cycle))


@pytest.mark.parametrize("path", all_files(), ids=str)
def test_files_and_functions_are_short(path: Path) -> None:
    source = (ROOT / path).read_text()
    assert len(source.splitlines()) <= FILE_LINES
    assert long_functions(source) == []


def test_long_functions_are_found() -> None:
    def function(name: str, lines: int) -> str:
        return f"def {name}():\n" + "    pass\n" * (lines - 1)

    source = function("long", 61) + "class A:\n" + indent(function("method", 62), "    ")
    assert long_functions(source + function("short", 60)) == [
        "long (61 lines)",
        "method (62 lines)",
    ]


def test_the_package_list_matches_the_folders() -> None:
    folders = {path.parent for path in package_files() if len(path.parts) > 1}
    found = {"distinit", *(".".join(("distinit", *folder.parts)) for folder in folders)}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found
    for folder in folders:
        assert (ROOT / folder / "__init__.py").is_file(), f"{folder} has no __init__.py"


def test_the_modules_at_the_root() -> None:
    assert sorted(path.name for path in ROOT.glob("*.py")) == sorted(ROOT_MODULES)


def test_the_type_checker_sees_the_package_as_it_is_installed() -> None:
    links = {path.name: path for path in (ROOT / ".typings/distinit").iterdir()}
    assert links.keys() == {*ROOT_MODULES, "py.typed", *PACKAGES}
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
