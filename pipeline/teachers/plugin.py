"""Teachers that users write: ``plugin:package.module:function``.

A plugin is code that gets executed. Its name is therefore only ever taken from the command
line or a configuration file of the user, never from a cache that was received from others.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from distinit.pipeline.teachers.network import Network, assemble, named_labels
from distinit.schemas.base import PLUGIN
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import PreprocessSpec, TeacherRequest

__all__ = ["TeacherParts", "TeacherPlugin", "load_plugin"]

TeacherParts = tuple[nn.Module, PreprocessSpec, Sequence[str], str]
"""The network, its preprocessing, its class names (may be empty), the name of its label space."""


class TeacherPlugin(Protocol):
    """The signature of ``function`` in ``plugin:package.module:function``."""

    def __call__(self, weights: str | None, device: str) -> TeacherParts:
        """Build the network with its weights loaded.

        Args:
            weights: The file given with ``--weights``, or None.
            device: Where the network will run. The caller moves it there in any case.

        Returns:
            The network, which maps float32 [N, 3, crop_size, crop_size] to logits [N, C];
            its preprocessing; C class names or none; the name of the label space. If that name
            is empty, it is derived from the digest of the class names. With ``target: features``
            the network's output is taken as features, and the class names are ignored.
        """


def load_plugin(request: TeacherRequest, *, device: str) -> Network:
    """Import and call a plugin. Raises TeacherError if it is not found or its result is invalid.

    The digest of the plugin's source file is part of the architecture's name, so that edited code
    gives a teacher with another fingerprint.
    """
    target = request.name.removeprefix(PLUGIN)
    function = _find(target)
    with torch.random.fork_rng(devices=[]):  # building a network draws random numbers
        result = function(request.weights, device)
    module, spec, names = _checked(target, result)
    name = target.rpartition(":")[2]
    labels = named_labels(names if request.target == "logits" else (), result[3] or None)
    return assemble(
        module.eval(),
        request,
        architecture=f"plugin/{target}@{_source_digest(function)}",
        preprocessing=spec,
        classes=_output_width(module, spec, target),
        labels=labels,
        stem=name,
        has_head=False,
    )


def _find(target: str) -> Callable[[str | None, str], Any]:
    module_name, _, function_name = target.partition(":")
    if not module_name or not function_name:
        raise TeacherError(
            f"plugin:{target} does not name a function",
            expected="plugin:package.module:function",
            found=f"plugin:{target}",
            remedy="give the name of the module, a colon, and the name of the function",
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # the plugin was found, but not a module that it imports
        raise TeacherError(
            f"the plugin module {module_name} cannot be imported",
            expected="a module on Python's path",
            found=str(error),
            remedy="install it, or add its folder to PYTHONPATH",
        ) from error
    function: Callable[[str | None, str], Any] | None = getattr(module, function_name, None)
    if not callable(function):
        raise TeacherError(
            f"the plugin module {module_name} has no function {function_name}",
            expected="function(weights, device) -> (network, PreprocessSpec, names, label space)",
            found="nothing with that name" if function is None else type(function).__name__,
            remedy=f"check the name in {inspect.getfile(module)}",
        )
    return function


def _checked(target: str, result: Any) -> tuple[nn.Module, PreprocessSpec, tuple[str, ...]]:
    is_valid = (
        isinstance(result, tuple)
        and len(result) == 4
        and isinstance(result[0], nn.Module)
        and isinstance(result[1], PreprocessSpec)
        and not isinstance(result[2], str)
        and isinstance(result[3], str)
    )
    if not is_valid:
        kinds = [type(part).__name__ for part in result] if isinstance(result, tuple) else []
        raise TeacherError(
            f"plugin:{target} did not return a teacher",
            expected="(nn.Module, PreprocessSpec, class names, label space)",
            found=f"({', '.join(kinds)})" if kinds else type(result).__name__,
            remedy="see TeacherPlugin in distinit.pipeline.teachers.plugin",
        )
    return result[0], result[1], tuple(str(name) for name in result[2])


def _output_width(module: nn.Module, spec: PreprocessSpec, target: str) -> int:
    """Number of values that the network computes for a frame, measured with a black one."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        output = module(torch.zeros(1, 3, spec.crop_size, spec.crop_size, device=device))
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or len(output) != 1:
        shape = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise TeacherError(
            f"the output of the network of plugin:{target} is not one row per frame",
            expected="a tensor [1, classes] for one frame",
            found=str(shape),
            remedy="pool and flatten the output inside the network",
        )
    return int(output.shape[1])


def _source_digest(function: Callable[..., Any]) -> str:
    source = inspect.getsourcefile(function)
    if source is None:
        return "no-source"
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()[:8]
