"""examples/tour.ipynb: it runs on a small demo, and no outputs are stored in it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from helpers.demos import SmallDemo
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples/tour.ipynb"


def test_no_outputs_are_stored_in_the_notebook() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert 18 <= len(notebook.cells) <= 30
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_the_notebook_runs_on_the_outputs_of_the_demo(
    small_demo: SmallDemo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTINIT_DEMO", str(small_demo.root))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    text = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "digits/cache: 20 videos, teacher digits, 10 classes" in text
    assert "logits (24, 10) float32" in text
    assert "heads: {'digits': 10}" in text
    assert f"top-1 {small_demo.results['distinit'].top1:5.1f} %" in text
    pictures = [output for cell in code for output in cell.outputs if "data" in output]
    assert sum("image/png" in picture.data for picture in pictures) == 8
