"""Describes the keys of a configuration: type, default, unit, source and meaning."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from distinit.schemas.base import DEPENDENT_DEFAULT

__all__ = ["ConfigKey", "keys_of", "record_of", "type_text", "yaml_value"]

_PLAIN = {int: "whole number", float: "number", bool: "true or false", str: "text", Any: "anything"}
_LIMITS: tuple[tuple[type[Any], str, str], ...] = (
    (Ge, "ge", "at least"),
    (Gt, "gt", "more than"),
    (Le, "le", "at most"),
    (Lt, "lt", "less than"),
    (MinLen, "min_length", "at least"),
)


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One key. ``keys``: the keys below it, if it holds a record or a list of records."""

    name: str
    type_text: str
    default: Any
    """As in YAML; None also stands for null. Of no use if ``required``."""
    required: bool
    dependent: bool
    """The default depends on other keys: it is what the record computes without them."""
    is_list: bool
    least: int
    """Shortest length of a list that is required."""
    unit: str
    """Of a number; - if it only names something, as a seed does. Empty for other values."""
    source: str
    """Where the default or its value in other work is from; empty if it is from nowhere else."""
    description: str
    keys: tuple[ConfigKey, ...]


def keys_of(model: type[BaseModel], defaults: BaseModel | None = None) -> tuple[ConfigKey, ...]:
    """The keys of ``model``, in the order of its fields.

    ``defaults`` holds the values of the section if they differ from those of ``model`` itself.
    """
    keys = []
    for name, field in model.model_fields.items():
        given = None if defaults is None else getattr(defaults, name)
        default = _default(field, model) if defaults is None else given
        record = record_of(field.annotation)
        is_list = typing.get_origin(field.annotation) is tuple
        inner = _inner(record, default, is_list=is_list) if record is not None else ()
        keys.append(
            ConfigKey(
                name=name,
                type_text=type_text(field.annotation, tuple(field.metadata)),
                default=None if default is PydanticUndefined else _plain(default),
                required=default is PydanticUndefined,
                dependent=_is_dependent(field, record, default),
                is_list=is_list,
                least=max(
                    (m.min_length for m in field.metadata if isinstance(m, MinLen)), default=1
                ),
                unit=_extra(field, "unit"),
                source=_extra(field, "source"),
                description=_yaml_words(field.description or ""),
                keys=inner,
            )
        )
    return tuple(keys)


def _yaml_words(description: str) -> str:
    """The description on one line, with YAML's name for None."""
    return re.sub(r"\bNone\b", "null", " ".join(description.split()))


def record_of(annotation: Any) -> type[BaseModel] | None:
    """The record class in ``annotation``: itself, of a list, or one that may be null."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    parts = [part for part in typing.get_args(annotation) if part not in (type(None), ...)]
    if typing.get_origin(annotation) in (tuple, types.UnionType, typing.Union) and len(parts) == 1:
        return record_of(parts[0])
    return None


def type_text(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """A type in words: ``whole number, at least 1``, ``cpu | gpu``, ``list of numbers``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(arguments[0], (*arguments[1:], *metadata))
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (types.UnionType, typing.Union):
        kinds = [a for a in arguments if a is not type(None)]
        texts = [type_text(kind, metadata) for kind in kinds]
        return " | ".join([*texts, *(["null"] if len(kinds) < len(arguments) else [])])
    if origin is tuple:
        kinds = [a for a in arguments if a is not ...]
        count = "" if ... in arguments else f" of {len(kinds)} values"
        return f"list{count}: {type_text(kinds[0])}"
    if origin is dict:
        return f"names with values: {type_text(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "keys"
    words = _PLAIN.get(annotation, "text")
    return ", ".join([words, *_limits(metadata)])


def yaml_value(value: Any) -> str:
    """A plain value as YAML, on one line."""
    if isinstance(value, str):
        return _text(value)
    text = json.dumps(value, ensure_ascii=False)
    # YAML 1.1 takes 1e-08 for a text, and 1.0e-08 for a number.
    is_whole_power = isinstance(value, float) and "e" in text and "." not in text
    return text.replace("e", ".0e", 1) if is_whole_power else text


def _text(value: str) -> str:
    is_plain = value.replace("_", "").replace("-", "").replace("/", "").isalnum()
    special = {"true", "false", "null", "yes", "no", "on", "off"}
    is_safe = is_plain and value[0].isalpha() and value.lower() not in special
    return value if is_safe else json.dumps(value, ensure_ascii=False)


def _limits(metadata: tuple[Any, ...]) -> Iterator[str]:
    flat = [part for item in metadata for part in (getattr(item, "metadata", None) or [item])]
    for kind, attribute, words in _LIMITS:
        for item in flat:
            if isinstance(item, kind) and not (kind is MinLen and isinstance(item, MaxLen)):
                limit = getattr(item, attribute)
                yield f"{words} {limit:,}" if isinstance(limit, int) else f"{words} {limit:g}"


def _default(field: FieldInfo, model: type[BaseModel]) -> Any:
    factory = field.default_factory
    if factory is None:
        return field.default
    if not field.default_factory_takes_validated_data:
        return typing.cast("Any", factory)()
    return getattr(model(), next(n for n, f in model.model_fields.items() if f is field))


def _extra(field: FieldInfo, name: Literal["unit", "source"]) -> str:
    """The unit or source that a field has in ``json_schema_extra``; empty if it has none."""
    extra = field.json_schema_extra
    return str(extra.get(name, "")) if isinstance(extra, dict) else ""


def _inner(record: type[BaseModel], default: Any, *, is_list: bool) -> tuple[ConfigKey, ...]:
    if is_list:
        return keys_of(record)
    return keys_of(record, default if isinstance(default, BaseModel) else None)


def _is_dependent(field: FieldInfo, record: type[BaseModel] | None, default: Any) -> bool:
    if DEPENDENT_DEFAULT in field.metadata:
        return True
    if field.default_factory is not None and field.default_factory_takes_validated_data:
        return True
    return record is not None and default is None


def _plain(value: Any) -> Any:
    """``value`` as YAML can hold it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value
