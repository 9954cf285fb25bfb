"""Builds a typed configuration from a YAML file, command-line options and --set settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from distinit.pipeline.config_mistakes import explain
from distinit.pipeline.given_values import refuse_unusable_values
from distinit.schemas.base import Record
from distinit.schemas.errors import ConfigError
from distinit.schemas.wording import reason_of, shorten, shown

__all__ = [
    "build_config",
    "merge_setting",
    "read_yaml",
    "sampling_choice",
    "teacher_requests",
]

_MAX_CHARACTERS = 1 << 20
"""Of a YAML file, and of its values after aliases are expanded. Ready ones have about 2,000."""
# What the constructors of PyYAML raise for values such as 2024-13-45, !!int x and !!bool x.
_BAD_VALUES = (ValueError, LookupError, AttributeError, TypeError, RecursionError)


def build_config[ConfigT: Record](
    model: type[ConfigT],
    file: Path | None,
    settings: Iterable[str],
    options: Mapping[str, Any],
    names: Mapping[str, str] | None = None,
) -> ConfigT:
    """Build a configuration from ``file``, ``options`` and ``settings``; later sources win.

    ``options`` maps dotted names to values; None means "not given". ``a.*.b`` is the key ``b`` of
    every element of the list ``a``, which has one element by default. ``settings`` are strings
    ``a.b=value`` whose values are YAML. ``names``: the option of each key that has one, for
    messages (see ``explain``). Raises ConfigError.
    """
    values: dict[str, Any] = read_yaml(file) if file is not None else {}
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        _merge_option(values, name, value)
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator or not name:
            raise ConfigError(
                f"--set {shorten(setting)} is not of the form a.b=value",
                remedy="write the key, an equals sign and the value: --set optimizer.epochs=5",
            )
        merge_setting(values, name.strip(), _parse_yaml(text, f"--set {setting}"))
    for name, value in given.items():
        if "*" in name:  # elements that a setting has added
            _merge_option(values, name, value, replace=False)
    refuse_unusable_values(values)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        name = model.__name__.removesuffix("Config").lower()
        found = explain(model, error, names)
        raise ConfigError(f"the {name} configuration is invalid", found=found) from None


def teacher_requests(
    teachers: Sequence[str], weights: Sequence[str], **same: str | None
) -> list[dict[str, str]] | None:
    """--teacher and --weights as entries of ``teachers``; None without --teacher.

    ``same``: --encoding, --target and --pool, for all teachers. --pool implies features. Raises
    ConfigError for more weights files than teachers.
    """
    given = {key: value for key, value in same.items() if value is not None}
    if "pool" in given:
        given.setdefault("target", "features")
    if len(weights) > len(teachers):
        raise ConfigError("each --weights needs a --teacher", found=f"{len(weights)} weights files")
    requests = [{"name": name} for name in teachers]
    for request, file in zip(requests, weights, strict=False):
        request["weights"] = file
    for request in requests:
        request |= given
    return requests or None


def sampling_choice(given: Mapping[str, float | None]) -> dict[str, Any] | None:
    """--stride, --fps or --per-video as the value of ``sampling``; None if none was given.

    Raises ConfigError for more than one of them.
    """
    named = {mode: value for mode, value in given.items() if value is not None}
    if len(named) > 1:
        raise ConfigError(
            "--stride, --fps and --per-video are mutually exclusive",
            found=" and ".join(f"--{mode.replace('_', '-')}" for mode in named),
        )
    return {"mode": next(iter(named)), **named} if named else None


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError if it is missing or not a mapping."""
    try:
        with file.open("rb") as source:
            data = source.read(_MAX_CHARACTERS + 1)
        if len(data) > _MAX_CHARACTERS:
            raise ValueError(f"more than {_MAX_CHARACTERS:,} bytes")
        text = data.decode("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read the configuration {file}",
            found=reason_of(error),
            remedy="give --config the path of a YAML file; configs/ has ready ones",
        ) from error
    values = _parse_yaml(text, str(file)) or {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{file} is not a configuration",
            expected="a YAML mapping of names to values",
            found=shown(values),
        )
    if others := [name for name in values if not isinstance(name, str)]:
        raise ConfigError(
            f"{file} is not a configuration",
            expected="names that are texts",
            found=shown(others[0]),
        )
    return values


def _merge_option(values: dict[str, Any], dotted: str, value: Any, *, replace: bool = True) -> None:
    """``merge_setting`` with ``a.*.b``. Without ``replace``, values that are there are kept."""
    name, star, rest = dotted.partition(".*.")
    if not star:
        merge_setting(values, name, value)
        return
    elements = values.setdefault(name, [{}])
    for number in range(len(elements) if isinstance(elements, list) else 0):
        if replace or not _has(elements[number], rest):
            merge_setting(values, f"{name}.{number}.{rest}", value)


def _has(node: Any, dotted: str) -> bool:
    """Whether the dotted key is in nested mappings."""
    for name in dotted.split("."):
        if not isinstance(node, dict) or name not in node:
            return False
        node = node[name]
    return True


def merge_setting(values: dict[str, Any], dotted: str, value: Any) -> None:
    """Set ``values["a"]["b"] = value`` for ``a.b``; a number steps into a list. In place.

    In ``a.0.b`` a list ``a`` that is missing or empty gets its first element.

    Raises ConfigError if a part of the path is neither a mapping nor a list.
    """
    *path, last = dotted.split(".")
    node: Any = values
    for position, name in enumerate(path):
        if isinstance(node, list):
            if name == "0" and not node:
                node.append({})
            node = node[_list_index(node, name, dotted)]
        elif isinstance(node, dict):
            has_index = path[position + 1 : position + 2] == ["0"]
            node = node.setdefault(name, [{}] if has_index else {})
            if node is None:
                raise ConfigError(f"{dotted}: {name} is empty and has no keys")
        else:
            raise ConfigError(f"{dotted}: the value that should contain {name} has no keys")
    if isinstance(node, list):
        node[_list_index(node, last, dotted)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigError(f"{dotted}: the value that should contain {last} has no keys")


def _list_index(node: list[Any], name: str, dotted: str) -> int:
    if not name.isdigit() or int(name) >= len(node):
        raise ConfigError(
            f"{dotted}: {shown(name)} is not an index of the list",
            expected=f"a number from 0 to {len(node) - 1}",
        )
    return int(name)


def _parse_yaml(text: str, source: str) -> Any:
    try:
        value = yaml.safe_load(text)
        if _expanded_size(value, {}) > _MAX_CHARACTERS:
            raise ConfigError(
                f"{shorten(source)}: its aliases expand to more than {_MAX_CHARACTERS:,} "
                "characters",
                remedy="write the values without aliases, which are the names after *",
            )
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "not valid YAML"
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{shorten(source)}{where}: {problem}") from error
    except _BAD_VALUES as error:
        found = "too many levels" if isinstance(error, RecursionError) else shorten(str(error))
        raise ConfigError(f"{shorten(source)}: not valid YAML", found=found) from error
    return value


def _expanded_size(value: Any, known: dict[int, int]) -> int:
    """Characters and containers in ``value``, in which an alias counts like a copy.

    ``known``: sizes of containers by their ``id``. One that contains itself is too large.
    """
    if not isinstance(value, dict | list | tuple | set):
        return len(str(value))
    key = id(value)
    if key not in known:
        known[key] = _MAX_CHARACTERS + 1
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        known[key] = 1 + sum(_expanded_size(part, known) for part in parts)
    return known[key]
