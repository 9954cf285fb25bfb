"""Configurations and records are immutable, refuse unknown keys, and describe every field."""

from __future__ import annotations

import importlib
import pkgutil

from pydantic import BaseModel

from distinit import schemas, stages


def _models() -> list[type[BaseModel]]:
    """All models of ``schemas`` and ``stages``, private ones too, in the order of their names."""
    found: set[type[BaseModel]] = set()
    for package in (schemas, stages):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            values = vars(importlib.import_module(module.name)).values()
            found |= {v for v in values if isinstance(v, type) and issubclass(v, BaseModel)}
    found -= {BaseModel}
    return sorted(found, key=lambda model: (model.__module__, model.__name__))


def test_every_field_of_every_model_is_described() -> None:
    names = {model.__name__ for model in _models()}
    assert {"FinetuneConfig", "UnitCommit", "DatasetRecord", "_RowSums", "ExtractResult"} <= names
    missing = [
        f"{model.__module__}.{model.__name__}.{name}"
        for model in _models()
        for name, field in model.model_fields.items()
        if not (field.description or "").strip()
    ]
    assert missing == []


def test_every_model_is_immutable_and_refuses_unknown_keys() -> None:
    loose = [
        model.__name__
        for model in _models()
        if not model.model_config.get("frozen") or model.model_config.get("extra") != "forbid"
    ]
    assert loose == []
