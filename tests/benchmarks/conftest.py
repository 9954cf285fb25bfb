"""The benchmarks as modules: they are scripts, outside of the package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    def import_benchmark(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(BENCHMARKS)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return import_benchmark
