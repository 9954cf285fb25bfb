"""Loads the tables of the paper and the scales from ``configs/paper``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from distinit.pipeline.config import build_config, read_yaml
from distinit.schemas.errors import ConfigError
from distinit.schemas.reproduce import ScaleConfig, TableConfig
from distinit.schemas.wording import did_you_mean

__all__ = ["SCALES", "TABLES", "load_scale", "load_tables"]

TABLES = (*(f"table{number}" for number in range(1, 7)), *(f"fig{n}" for n in range(3, 8)))
_NUMBERS = "the tables are 1 to 6, and the figures 3 to 7"
SCALES = ("smoke", "small", "paper")
_FILES = ("distill", "finetune", "scratch", "pretrain")
"""Keys of a scale that may name a file instead of holding settings."""


def load_tables(name: str) -> tuple[TableConfig, ...]:
    """The table ``name``, or all of them in the order of TABLES. Raises ConfigError."""
    if name != "all" and name not in TABLES:
        raise ConfigError(
            f"there is no table {name}",
            expected=f"one of {', '.join(TABLES)}, or all",
            remedy=_NUMBERS
            if re.fullmatch("(table|fig)[0-9]*", name)
            else did_you_mean(name, [*TABLES, "all"]),
        )
    names = TABLES if name == "all" else (name,)
    with as_file(files("distinit.configs") / "paper") as folder:
        return tuple(build_config(TableConfig, folder / f"{n}.yaml", (), {}) for n in names)


def load_scale(name: str, settings: Iterable[str] = ()) -> ScaleConfig:
    """A scale of SCALES, or one of your own in a ``.yaml`` file; ``settings`` change its keys.

    Files that it or a setting ``distill=FILE.yaml`` names are read from its folder. Raises
    ConfigError.
    """
    if name in SCALES:
        with as_file(files("distinit.configs") / "paper") as folder:
            return _read_scale(folder / f"scale_{name}.yaml", settings)
    if not name.endswith((".yaml", ".yml")):
        raise ConfigError(
            f"there is no scale {name}",
            expected=f"one of {', '.join(SCALES)}, or a .yaml file",
            remedy=did_you_mean(name, SCALES),
        )
    return _read_scale(Path(name), settings)


def _read_scale(file: Path, settings: Iterable[str]) -> ScaleConfig:
    values: dict[str, Any] = read_yaml(file)
    others = []
    for setting in settings:
        key, _, value = setting.partition("=")
        if key in _FILES and value.endswith((".yaml", ".yml")):
            values[key] = value
        else:
            others.append(setting)
    for key in _FILES:
        if isinstance(named := values.get(key), str):
            values[key] = read_yaml(file.parent / named)
    return build_config(ScaleConfig, None, others, values)
