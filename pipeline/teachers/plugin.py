"""Teachers that users write: ``plugin:package.module:function``.

A plugin is code that gets executed. Its name is therefore only ever taken from the command
line or a configuration file of the user, never from a cache that was received from others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from distinit.pipeline.plugins import find_function, in_words, plugin_errors
from distinit.pipeline.teachers.network import Network, assemble, named_labels
from distinit.pipeline.teachers.pooling import (
    Spatial,
    map_of,
    pooled_network,
    row_width,
    square_grid,
    tokens_of,
)
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
            the network's output is taken as features, and the class names are ignored. With a
            pool, the output is tokens [N, T, D] or a map [N, D, H, W]. ``num_prefix_tokens`` of the
            network (default: 0) is the number of tokens before those of the patches, the first of
            which is the class token.
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
    name, is_logits = target.rpartition(":")[2], request.target == "logits"
    with plugin_errors(
        TeacherError,
        f"what {request.name} returned cannot be a teacher",
        expected="class names and a label space that are texts of at least one character",
    ):
        labels = named_labels(names if is_logits else (), space or None)
        return assemble(
            module.eval(),
            request,
            architecture=f"plugin/{target}@{_source_digest(file)}",
            preprocessing=spec,
            classes=_features(module.eval(), None, request.name, spec)[1] if is_logits else 0,
            labels=labels,
            stem=name,
            features=lambda pool: _features(module.eval(), pool, request.name, spec),
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


def _features(
    module: nn.Module, pool: str | None, name: str, spec: PreprocessSpec
) -> tuple[nn.Module, int]:
    """See ``Features``. Without a pool, or with pool ``head``, the output is a row as it is."""
    with _on_one_frame(name, spec):
        if pool in (None, "head"):
            return module, row_width(module, side=spec.crop_size, name=name)
        spatial = _PluginSpatial(module, name)
        return pooled_network(spatial, pool, name=name, side=spec.crop_size)


def _on_one_frame(name: str, spec: PreprocessSpec) -> AbstractContextManager[None]:
    side = spec.crop_size
    return plugin_errors(
        TeacherError,
        f"the network of {name} failed on one frame",
        expected=f"a network that takes float32 [1, 3, {side}, {side}] "
        f"(the crop_size of its PreprocessSpec is {side})",
    )


class _PluginSpatial(nn.Module):
    """Pictures [N, 3, H, W] -> Spatial, from a network that returns tokens or a map."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network = network
        self._name = name
        self._prefix = int(getattr(network, "num_prefix_tokens", 0))

    def forward(self, input_NCHW: torch.Tensor) -> Spatial:
        output = self.network(input_NCHW)
        if isinstance(output, torch.Tensor) and output.ndim == 4:
            return map_of(output)
        if isinstance(output, torch.Tensor) and output.ndim == 3:
            grid = square_grid(output.shape[1] - self._prefix)
            return tokens_of(output, prefix=self._prefix, has_class_token=True, grid=grid)
        raise TeacherError(
            f"the network of {self._name} returns neither tokens nor a feature map",
            expected="a tensor [N, T, D] or [N, D, H, W], for a pool",
            found=in_words(output),
            remedy="leave out the pool, if the output is a feature row",
        )


def _source_digest(file: str | None) -> str:
    if file is None:
        return "no-source"
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8]
