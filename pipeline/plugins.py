"""Finds the function of ``plugin:package.module:function``, and explains what goes wrong in it.

A plugin is code of the user. What it raises is quoted with its file and line, so that its author
finds the place without a traceback.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from distinit.pipeline.config_mistakes import explain
from distinit.schemas.base import PLUGIN
from distinit.schemas.errors import DistInitError
from distinit.schemas.wording import did_you_mean, reason_of, shorten

__all__ = ["find_function", "in_words", "plugin_errors"]

_OWN_PACKAGES = ("torch", "torchvision", "importlib", "pydantic")
_WORDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    ((int, float), "a number"),
    (str, "a text"),
    (bytes, "bytes"),
    (dict, "a dictionary"),
    (ModuleType, "a Python module"),
    (type, "a class instead of an object"),
    (nn.Module, "a network"),
)


def find_function(
    name: str, *, error: type[DistInitError], signature: str
) -> tuple[Callable[..., Any], str | None]:
    """The function that ``plugin:package.module:function`` names, and the file of its module.

    Imports the module. Raises ``error`` if there is no such module or function, or if the module
    cannot be imported. ``signature``: how the function is called, for the message.
    """
    module_name, _, function_name = name.removeprefix(PLUGIN).partition(":")
    if not function_name or not all(part.isidentifier() for part in module_name.split(".")):
        raise error(
            f"{name} does not name a function",
            expected="plugin:package.module:function",
            found=name,
            remedy="give the name of the module, a colon, and the name of the function",
        )
    module = _imported(module_name, name, error)
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = [n for n, value in vars(module).items() if callable(value)]
        raise error(
            f"the plugin module {module_name} has no function {function_name}",
            expected=signature,
            found="nothing with that name" if function is None else in_words(function),
            remedy=did_you_mean(function_name, functions)
            or f"check the name in {getattr(module, '__file__', None) or module_name}",
        )
    return function, getattr(module, "__file__", None)


@contextmanager
def plugin_errors(error: type[DistInitError], problem: str, *, expected: str) -> Iterator[None]:
    """Turn any exception of a plugin's code into ``error``, with its text, file and line."""
    try:
        yield
    except DistInitError:
        raise
    except Exception as cause:
        raise error(
            problem,
            expected=expected,
            found=_quoted(cause),
            remedy="correct the plugin; the line is where it failed",
        ) from cause


def in_words(value: Any) -> str:
    """The kind of a value that a plugin returned: "a number", "2 values: a network, a text"."""
    if value is None:
        return "nothing (the function may lack a return)"
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, (tuple, list)):
        parts = ": " + ", ".join(map(in_words, value)) if 0 < len(value) <= 6 else ""
        return f"{len(value)} values{parts}"
    words = next((words for kind, words in _WORDS if isinstance(value, kind)), None)
    if words is None and isinstance(value, BaseModel):
        return f"a {type(value).__name__}"  # part of the signature that is asked for
    return words or ("a function" if callable(value) else "an object of another kind")


def _imported(module_name: str, name: str, error: type[DistInitError]) -> ModuleType:
    with plugin_errors(
        error, f"the module of {name} cannot be imported", expected="a module without errors"
    ):
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as missing:
            parents = f"{module_name}."
            if missing.name is None or not parents.startswith(f"{missing.name}."):
                raise  # the plugin was found, but not a module that it imports
            raise error(
                f"the plugin module {module_name} cannot be imported",
                expected="a module on Python's path",
                found=f"no module {missing.name}",
                remedy="install it, or add its folder to PYTHONPATH",
            ) from missing


def _quoted(cause: Exception) -> str:
    """What an exception says, and the file, line and code of the plugin that it comes from."""
    frames = [f for f in traceback.extract_tb(cause.__traceback__) if _is_of_user(f.filename)]
    if isinstance(cause, SyntaxError) and cause.filename:
        place = f"{cause.filename}, line {cause.lineno}"
        return f"{cause.msg} ({place})"
    text = shorten(_text(cause))
    if not frames:
        return text
    last = frames[-1]
    code = f": {last.line}" if last.line else ""
    return f"{text}\n{last.filename}, line {last.lineno}{code}"


def _text(cause: Exception) -> str:
    if isinstance(cause, ValidationError):
        return explain(_model_of(cause), cause)
    if isinstance(cause, KeyError):
        return f"there is no key {cause}"
    if isinstance(cause, ModuleNotFoundError) and cause.name:
        return f"it imports {cause.name}, which is not installed"
    if isinstance(cause, OSError) and isinstance(cause.filename, str):
        return f"{cause.filename}: {reason_of(cause)}"
    return reason_of(cause)


def _model_of(cause: ValidationError) -> type[BaseModel]:
    from distinit.schemas.teacher import PreprocessSpec  # the Record that plugins build

    return PreprocessSpec if cause.title == PreprocessSpec.__name__ else BaseModel


def _is_of_user(filename: str) -> bool:
    path = Path(filename)
    own = Path(__file__).resolve().parent  # a checkout may hold plugins beside the package
    return (
        not filename.startswith("<")
        and not path.resolve().is_relative_to(own)
        and not set(_OWN_PACKAGES) & set(path.parts)
    )
