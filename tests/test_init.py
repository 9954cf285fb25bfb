"""``import distinit``: fast, with a version and the public names; ``python -m distinit``."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import distinit

ROOT = Path(__file__).parents[1]


def python(*arguments: str) -> str:
    """What another Python prints. It imports this distinit."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_version_is_that_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert distinit.__version__ == project["version"]


@pytest.mark.parametrize("name", sorted(set(distinit.__all__) - {"__version__"}))
def test_a_public_name_is_the_one_that_type_checkers_see(name: str) -> None:
    """Under TYPE_CHECKING the names are imported, at run time they are looked up in a table."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (module,) = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}
    }
    assert module is not None
    assert getattr(distinit, name) is getattr(import_module(module), name)
    assert name in dir(distinit)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'distinit' has no attribute 'TargetCach'"):
        getattr(distinit, "Target" + "Cach")


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; import distinit; print(*(m for m in sys.modules if m.startswith('{}')))"
    assert python("-c", code.format("distinit")).split() == ["distinit"]
    assert python("-c", code.format("torch")).split() == []
    assert python("-c", code.format("numpy")).split() == []


def test_the_package_runs_as_a_module() -> None:
    assert python("-m", "distinit", "--version").split()[-1] == distinit.__version__
    assert "extract" in python("-m", "distinit", "--help")
