"""Teachers that users write: ``plugin:package.module:function``.

A plugin is code that gets executed. Its name is therefore only ever taken from the command
line or a configuration file of the user, never from a cache that was received from others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from distinit.pipeline.plugins import find_function, in_words, plugin_errors
from distinit.pipeline.teachers.network import Network, assemble, named_labels
from distinit.schemas.base import PLUGIN
from distinit.schemas.errors import TeacherError
from distinit.schemas.teacher import PreprocessSpec, TeacherRequest

__all__ = ["TeacherParts", "TeacherPlugin", "load_plugin"]

TeacherParts = tuple[nn.Module, PreprocessSpec, Sequence[str], str]
"""The network, its preprocessing, its class names (may be empty), the name of its label space."""

_SIGNATURE = "function(weights, device) -> (network, PreprocessSpec, class names, label space)"


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
    """Import and call a plugin, and run its network on one frame.

    Raises TeacherError if the plugin is not found, fails, or returns something invalid. The digest
    of its source file is part of the architecture's name, so that edited code gives a teacher with
    another fingerprint.
    """
    target = request.name.removeprefix(PLUGIN)
    function, file = find_function(request.name, error=TeacherError, signature=_SIGNATURE)
    with (
        plugin_errors(TeacherError, f"{request.name} failed", expected=_SIGNATURE),
        torch.random.fork_rng(devices=[]),  # building a network draws random numbers
    ):
        result = function(request.weights, device)
    module, spec, names, space = _checked(request.name, result)
    name = target.rpartition(":")[2]
    with plugin_errors(
        TeacherError,
        f"what {request.name} returned cannot be a teacher",
        expected="class names and a label space that are texts of at least one character",
    ):
        labels = named_labels(names if request.target == "logits" else (), space or None)
        return assemble(
            module.eval(),
            request,
            architecture=f"plugin/{target}@{_source_digest(file)}",
            preprocessing=spec,
            classes=_output_width(module, spec, request.name),
            labels=labels,
            stem=name,
            has_head=False,
        )


def _checked(name: str, result: Any) -> tuple[nn.Module, PreprocessSpec, tuple[str, ...], str]:
    match result:
        case (nn.Module() as module, PreprocessSpec() as spec, names, str(space)) if (
            isinstance(result, tuple)
            and isinstance(names, Iterable)
            and not isinstance(names, str | bytes)
        ):
            return module, spec, tuple(str(label) for label in names), space
    raise TeacherError(
        f"{name} did not return a teacher",
        expected="4 values: a network (torch.nn.Module), a PreprocessSpec, a list of class names, "
        "a text with the name of the label space",
        found=in_words(result),
        remedy="return these four from the function; the list and the text may be empty",
    )


def _output_width(module: nn.Module, spec: PreprocessSpec, name: str) -> int:
    """Number of values that the network computes for a frame, measured with a black one."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    side = spec.crop_size
    with (
        plugin_errors(
            TeacherError,
            f"the network of {name} failed on one frame",
            expected=f"a network that takes float32 [1, 3, {side}, {side}] "
            f"(the crop_size of its PreprocessSpec is {side})",
        ),
        torch.inference_mode(),
    ):
        output = module(torch.zeros(1, 3, side, side, device=device))
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or len(output) != 1:
        raise TeacherError(
            f"the output of the network of {name} is not one row per frame",
            expected="a tensor of shape [1, classes] for one frame",
            found=in_words(output),
            remedy="pool and flatten the output inside the network",
        )
    return int(output.shape[1])


def _source_digest(file: str | None) -> str:
    if file is None:
        return "no-source"
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8]
