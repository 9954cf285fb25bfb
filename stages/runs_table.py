"""Shows the table of runs on a terminal, with the columns that fit."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distinit.stages.runs import COLUMNS, RunSummary, RunTable, cells

__all__ = ["fitting_columns", "print_table"]

_NUMBERS = frozenset({"steps", "top-1", "per clip", "loss", "split", "seed", "epochs"})
_STYLES = {"finished": "green", "running": "cyan", "resumable": "yellow", "unreadable": "red"}
_LONGEST_PATH = 40  # characters of a path on a narrow terminal; the rest of it wraps
_GAP = 2  # one space of padding, and one between columns


def print_table(table: RunTable, console: Console | None = None) -> None:
    """Print the table, with as many columns as fit, and a line that names the others.

    Paths below the folder of the table are shown relative to it.
    """
    console = console or Console()
    rows = [cells(_relative(run, table.folder)) for run in table.runs]
    shown = fitting_columns(rows, console.width)
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for index in shown:
        grid.add_column(
            COLUMNS[index],
            justify="right" if COLUMNS[index] in _NUMBERS else "left",
            no_wrap=index > 0,
            overflow="fold" if index == 0 else "ellipsis",
        )
    for row in rows:
        grid.add_row(*(Text(row[index], style=_STYLES.get(row[index], "")) for index in shown))
    console.print(grid)
    left_out = [name for index, name in enumerate(COLUMNS) if index not in shown]
    if left_out:
        console.print(Text(f"columns that do not fit: {', '.join(left_out)}"))


def _relative(run: RunSummary, folder: str) -> RunSummary:
    """``run`` with its path, and that of the run in its init, relative to ``folder``."""
    kind, colon, source = (run.init or "").partition(":")
    init = f"{kind}:{_below(source, folder)}" if colon else run.init
    return run.model_copy(update={"path": _below(run.path, folder), "init": init})


def _below(path: str, folder: str) -> str:
    """``path`` relative to ``folder`` if it is below it, else unchanged."""
    root = Path(folder)
    inside = Path(path).is_relative_to(root) and Path(path) != root
    return str(Path(path).relative_to(root)) if inside else path


def fitting_columns(rows: list[tuple[str, ...]], width: int) -> list[int]:
    """Indices of the columns that fit into ``width`` characters, in their order.

    The columns up to the loss are always shown. Columns in which every run has the same text are
    the first to go, then the last ones.
    """
    widths = [
        max(cell_len(row[index]) for row in [COLUMNS, *rows]) for index in range(len(COLUMNS))
    ]
    widths[0] = min(widths[0], max(_LONGEST_PATH, width // 3))
    same = [len({row[index] for row in rows}) == 1 for index in range(len(COLUMNS))]
    always = COLUMNS.index("loss") + 1
    optional = sorted(range(always, len(COLUMNS)), key=lambda index: (same[index], index))
    shown, used = list(range(always)), sum(widths[:always]) + _GAP * (always - 1)
    for index in optional:
        if used + _GAP + widths[index] <= width:
            shown.append(index)
            used += _GAP + widths[index]
    return sorted(shown)
