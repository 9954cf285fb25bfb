"""Explains what is wrong with a configuration, in the terms of YAML instead of Python's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from distinit.schemas.wording import did_you_mean, one_line, shown

__all__ = ["dotted_names", "explain", "names_at"]

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "tuple": "a list",
    "list": "a list",
    "finite_number": "a finite number",
    "model": "keys with values",
    "dict": "keys with values",
}
"""Beginning of a pydantic error type -> what the value should be."""
_LIMITS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
    "too_short": ("min_length", "a list of at least this many values:"),
    "too_long": ("max_length", "a list of at most this many values:"),
    "string_too_short": ("min_length", "a text of at least this many characters:"),
    "string_too_long": ("max_length", "a text of at most this many characters:"),
}
"""pydantic error type -> the key of its limit, and the words before the limit."""
_COUNTS = {"too_short": ("min_length", "at least"), "too_long": ("max_length", "at most")}
"""The same for an option that is repeated: each of its values is one of the list."""


def explain(
    model: type[BaseModel], error: ValidationError, options: Mapping[str, str] | None = None
) -> str:
    """One line per mistake: the key, what it should be, and what was found.

    For an unknown key: the known ones, the closest first. ``options``: the option of each key that
    has one, such as ``optimizer.epochs`` -> ``--epochs N``.
    """
    by_place: dict[tuple[int | str, ...], list[Mapping[str, Any]]] = {}
    for item in error.errors(include_url=False):
        if item["type"] == "default_factory_not_called":  # a default that depends on a wrong value
            continue
        by_place.setdefault(_place(model, item["loc"]), []).append(dict(item))
    inner = {place[:length] for place in by_place for length in range(len(place))}
    return "\n".join(
        _line(model, place, items, options or {})
        for place, items in by_place.items()
        if place not in inner or not place  # a list counts as too short if its values are wrong
    )


def names_at(model: type[BaseModel], location: Sequence[int | str]) -> tuple[str, ...]:
    """Field names of the record at ``location`` in ``model``; none if it is not a record."""
    current: type[BaseModel] = model
    for part in location:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part)
        nested = _record_types(field.annotation) if field is not None else []
        if not nested:
            return ()
        current = nested[0]
    return tuple(current.model_fields)


def _place(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """``location`` without what pydantic adds to it for each alternative of a value."""
    for length in range(1, len(location)):
        part = location[length]
        is_key = isinstance(part, int) or bool(names_at(model, location[:length]))
        if not is_key:
            return location[:length]
    return location


def _line(
    model: type[BaseModel],
    place: tuple[int | str, ...],
    items: list[Mapping[str, Any]],
    options: Mapping[str, str],
) -> str:
    where = one_line(".".join(map(str, place)) or "the whole")
    first = items[0]
    option = options.get(".".join("*" if isinstance(p, int) else p for p in place))
    if first["type"] == "extra_forbidden":
        name, known = str(place[-1]), names_at(model, place[:-1])
        guess = did_you_mean(name, known) or _elsewhere(model, name)
        listed = f"known here: {', '.join(sorted(known))}"
        return f"{where}: unknown key; {f'{guess} ({listed})' if guess else listed}"
    if first["type"] == "missing":
        option = option or _first_below(where, options)
        way = f"as {option}, in --config" if option else "in --config, by option"
        return f"{where}: missing; give it {way} or with --set"
    if option:
        where = f"{option.split()[0]} ({where})"
    if first["type"] == "value_error":
        return f"{where}: {first.get('ctx', {}).get('error', first['msg'])}"
    if option and first["type"] in _COUNTS:
        key, words = _COUNTS[first["type"]]
        return f"{where}: give it {words} {first['ctx'][key]} times (found: {len(first['input'])})"
    wanted = " or ".join(dict.fromkeys(_wanted(item) for item in items))
    line = f"{where}: must be {wanted} (found {shown(first['input'])})"
    guess = did_you_mean(str(first["input"]), [n for item in items for n in _choices(item)])
    return f"{line}; {guess}" if guess and isinstance(first["input"], str) else line


def _first_below(key: str, options: Mapping[str, str]) -> str | None:
    """The first option that sets a key inside of ``key``: ``--dataset`` for ``dataset``."""
    return next((text for name, text in options.items() if name.startswith(f"{key}.")), None)


def _elsewhere(model: type[BaseModel], name: str) -> str | None:
    """For a key that exists in another place: "did you mean runtime.seed?"."""
    places = [key for key in dotted_names(model) if key.rpartition(".")[2] == name]
    return f"did you mean {' or '.join(places)}?" if places else None


def _wanted(item: Mapping[str, Any]) -> str:
    """What a value should be: "a whole number", "at least 1", "one of cpu, gpu"."""
    kind, context = str(item["type"]), item.get("ctx", {})
    if kind == "literal_error":
        names = _choices(item)
        return f"one of {', '.join(names)}" if len(names) > 1 else names[0]
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        limit = context[key]
        return f"{words} {limit:g}" if isinstance(limit, float) else f"{words} {limit}"
    if kind == "string_pattern_mismatch":
        return f"a text that matches {context['pattern']}"
    begin = next((begin for begin in _KINDS if kind.startswith(begin)), None)
    return _KINDS[begin] if begin is not None else "a value of another kind"


def _choices(item: Mapping[str, Any]) -> list[str]:
    """The names that a literal allows."""
    if item["type"] != "literal_error":
        return []
    expected = str(item["ctx"]["expected"]).replace(" or ", ", ")
    return [name.strip("'") for name in expected.split(", ")]


def dotted_names(model: type[BaseModel]) -> list[str]:
    """All keys of a configuration, such as ``runtime.seed``; those in lists are left out."""
    names = []
    for name, field in model.model_fields.items():
        names.append(name)
        if isinstance(kind := field.annotation, type) and issubclass(kind, BaseModel):
            names += [f"{name}.{inner}" for inner in dotted_names(kind)]
    return names


def _record_types(annotation: Any) -> list[type[BaseModel]]:
    """Record classes inside an annotation such as ``tuple[TargetConfig, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    inner: list[type[BaseModel]] = []
    for part in getattr(annotation, "__args__", ()):
        inner += _record_types(part)
    return inner
