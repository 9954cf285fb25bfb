"""Reads weights files from others: without executing code, and complete or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from distinit.pipeline.pickled import (
    CodeInPickleError,
    max_file_bytes,
    read_pickled,
    tensor_problem,
)
from distinit.pipeline.storage import sha256_file
from distinit.pipeline.tensors import read_shapes, read_tensors
from distinit.schemas.errors import WeightsError
from distinit.schemas.wording import first_names

__all__ = [
    "StateDict",
    "checkpoints_dir",
    "load_strictly",
    "read_state_dict",
    "require_hash_prefix",
    "require_weights_file",
]

StateDict = dict[str, torch.Tensor]

_WRAPPER_KEYS = ("state_dict", "model", "teacher")
_WRAPPER_PARTS = frozenset({"module", "_orig_mod"})
"""Parts of key names that DataParallel and torch.compile add."""
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.pth$")
_NAMES_SHOWN = 3


def checkpoints_dir() -> Path:
    """The folder of weights that torchvision downloaded: ``$TORCH_HOME/hub/checkpoints``."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def require_weights_file(path: Path) -> Path:
    """``path`` if it is a file; raises WeightsError otherwise."""
    if not path.is_file():
        found = "a pipe or a device" if path.exists() else "nothing at that path"
        raise WeightsError(
            f"cannot open the weights file {path}",
            expected="a .pth, .pt, .pth.tar or .safetensors file",
            found="a folder" if path.is_dir() else found,
            remedy="check the path given with --weights",
            named_input=True,
        )
    return path


def require_hash_prefix(path: Path) -> None:
    """Check the hash in a published file name (``resnet50-0676ba61.pth``) against the content.

    A name without a hash is accepted. Raises WeightsError if they differ.
    """
    match = _HASH_IN_NAME.search(path.name)
    if match is None:
        return
    digest = sha256_file(path)
    if not digest.startswith(match.group(1)):
        raise WeightsError(
            f"the content of the weights file {path} does not match its name",
            expected=f"a sha256 that starts with {match.group(1)}",
            found=f"{digest[:16]}...",
            remedy="the download is damaged or the file was renamed: download it again",
        )


def read_state_dict(path: Path) -> StateDict:
    """Read tensors from ``path`` without executing code from it.

    Unwraps a key ``state_dict``, ``model`` or ``teacher`` (self-distillation saves its student,
    too) and removes the ``module`` parts that DataParallel adds to names. Raises WeightsError if
    the file is missing or unreadable, contains pickled code, has several of these keys, or is not
    a state dict.
    """
    require_weights_file(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    content = _unwrapped(content, path)
    if not isinstance(content, Mapping) or not content or _no_tensors(content):
        raise WeightsError(
            f"the file {path} does not contain a state dict",
            expected="a mapping of names to tensors, either bare or under one of the keys "
            f"{', '.join(_WRAPPER_KEYS)}",
            found=_describe(content),
            remedy="save it with torch.save(network.state_dict(), path)",
        )
    for name, value in content.items():
        if problem := tensor_problem(value) if isinstance(name, str) else "has no name":
            raise WeightsError(
                f"the weights file {path} contains values that are not weights",
                expected="plain tensors only",
                found=f"{name} {problem}",
                remedy="move the network to the CPU and save its state_dict() as it was trained",
            )
    return _with_plain_names(content, path)


def _unwrapped(content: object, path: Path) -> object:
    """The state dict inside of a checkpoint. Raises WeightsError if there are several."""
    if not isinstance(content, Mapping):
        return content
    keys = [key for key in _WRAPPER_KEYS if isinstance(content.get(key), Mapping)]
    if len(keys) > 1:
        raise WeightsError(
            f"the weights file {path} contains several state dicts",
            expected=f"one of the keys {', '.join(_WRAPPER_KEYS)}",
            found=", ".join(keys),
            remedy=f'save the one to use: torch.save(torch.load(path)["{keys[0]}"], new_path)',
        )
    return content[keys[0]] if keys else content


def _with_plain_names(state_dict: Mapping[str, torch.Tensor], path: Path) -> StateDict:
    plain = {_plain_name(name): tensor for name, tensor in state_dict.items()}
    if len(plain) != len(state_dict):
        raise WeightsError(
            f"the weights file {path} has names that differ only in a prefix",
            expected=f"one tensor for each name without {' and '.join(sorted(_WRAPPER_PARTS))}",
            found=f"{len(state_dict)} tensors with {len(plain)} names",
            remedy="save only the tensors of the network to use",
        )
    return plain


def load_strictly(network: nn.Module, state_dict: StateDict, *, source: str) -> None:
    """Load ``state_dict`` into ``network``; both must have the same tensors.

    A weight may be stored in a narrower floating-point type than the network's: its value does not
    change. Raises WeightsError if tensors are missing, unexpected, of another shape or type, or
    not finite; it names the first ones of each kind.
    """
    expected = network.state_dict()
    state_dict = _without_stray_counters(state_dict, expected)
    # Batch norms saved before torch 0.4.1 have no num_batches_tracked. Inference does not use it.
    missing = [n for n in expected if n not in state_dict and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in state_dict if n not in expected]
    misshapen = [
        f"{n} {list(state_dict[n].shape)} instead of {list(expected[n].shape)}"
        for n in expected
        if n in state_dict and state_dict[n].shape != expected[n].shape
    ]
    mistyped = [
        f"{n} {_type(state_dict[n])} instead of {_type(expected[n])}"
        for n in expected
        if n in state_dict and not _widens(state_dict[n].dtype, expected[n].dtype)
    ]
    findings = {
        "missing": missing,
        "unexpected": unexpected,
        "other shapes": misshapen,
        "other types": mistyped,
    }
    if any(findings.values()):
        found = "; ".join(
            f"{what}: {first_names(names, _NAMES_SHOWN)}"
            for what, names in findings.items()
            if names
        )
        raise WeightsError(
            f"the weights in {source} are those of another network",
            expected=f"the {len(expected)} tensors of {type(network).__name__}",
            found=found,
            remedy="name the architecture that these weights were trained with",
        )
    _require_finite(network, state_dict, source)
    network.load_state_dict(state_dict, strict=False)


def _without_stray_counters(
    state_dict: StateDict, expected: Mapping[str, torch.Tensor]
) -> StateDict:
    """Drop batch norm counters of another type: some tools convert all tensors to floats."""
    return {
        name: tensor
        for name, tensor in state_dict.items()
        if not (
            name.endswith("num_batches_tracked")
            and name in expected
            and tensor.dtype != expected[name].dtype
        )
    }


def _widens(stored: torch.dtype, expected: torch.dtype) -> bool:
    """Whether all values of ``stored`` can be represented in ``expected``, a type of its kind."""
    both_float = stored.is_floating_point and expected.is_floating_point
    return stored == expected or (both_float and torch.promote_types(stored, expected) == expected)


def _require_finite(network: nn.Module, state_dict: StateDict, source: str) -> None:
    """Raise WeightsError if a weight is not finite or a buffer is NaN; masks may be infinite."""
    weights = {name for name, _ in network.named_parameters()}
    for name, tensor in state_dict.items():
        if not tensor.is_floating_point():
            continue
        bad = ~torch.isfinite(tensor) if name in weights else torch.isnan(tensor)
        if count := int(bad.sum()):
            raise WeightsError(
                f"the weights in {source} are not finite",
                expected="finite numbers",
                found=f"{name}: {count} of {tensor.numel()} values are NaN or infinite",
                remedy="the training that wrote them has diverged: use an earlier checkpoint",
            )


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _read_safetensors(path: Path) -> object:
    try:
        if path.stat().st_size > max_file_bytes():
            raise ValueError("the file is larger than the memory of this machine")
        return read_tensors(path, read_shapes(path), finite=False)
    except (OSError, ValueError, RecursionError, MemoryError, RuntimeError) as error:
        raise _unreadable(path, error) from error


def _read_torch(path: Path) -> object:
    try:
        return read_pickled(path)
    except CodeInPickleError as error:
        raise WeightsError(
            f"the weights file {path} was refused",
            expected="tensors only",
            found=f"pickled code ({error})",
            remedy="ask its author for the bare state dict, preferably as .safetensors",
        ) from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"the weights file {path} cannot be read",
        expected="a complete file written by torch.save or safetensors",
        found=_first_line(error),
        remedy="download the file again: it may be truncated",
    )


def _no_tensors(content: Mapping[object, object]) -> bool:
    return not any(isinstance(value, torch.Tensor) for value in content.values())


def _plain_name(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPER_PARTS)


def _describe(content: object) -> str:
    if isinstance(content, Mapping):
        names = first_names(map(str, content), _NAMES_SHOWN)
        return f"a mapping with the keys {names}" if content else "{}"
    return f"a {type(content).__name__}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
