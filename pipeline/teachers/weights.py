"""Weight files of others: read without executing anything, and loaded whole or not at all."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from distinit.pipeline.storage import sha256_file
from distinit.schemas.errors import WeightsError

__all__ = [
    "StateDict",
    "checkpoints_dir",
    "load_strictly",
    "read_state_dict",
    "require_hash_prefix",
    "require_weights_file",
]

StateDict = dict[str, torch.Tensor]

_WRAPPER_KEYS = ("state_dict", "model")
_WRAPPER_PARTS = frozenset({"module", "_orig_mod"})
"""Left in key names by DataParallel and torch.compile."""
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.pth$")
_SHOWN = 3


def checkpoints_dir() -> Path:
    """Where torchvision keeps downloaded weights: ``$TORCH_HOME/hub/checkpoints``."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def require_weights_file(path: Path) -> Path:
    """``path`` if it is a file; raises WeightsError otherwise."""
    if not path.is_file():
        raise WeightsError(
            f"there is no weights file {path}",
            expected="a .pth, .pt, .pth.tar or .safetensors file",
            found="a folder" if path.is_dir() else "nothing at that path",
            remedy="check the path given with --weights",
        )
    return path


def require_hash_prefix(path: Path) -> None:
    """Check a published name's hash (``resnet50-0676ba61.pth``) against the file's sha256.

    A name without a hash passes. Raises WeightsError when the two differ.
    """
    match = _HASH_IN_NAME.search(path.name)
    if match is None:
        return
    digest = sha256_file(path)
    if not digest.startswith(match.group(1)):
        raise WeightsError(
            f"the weights file {path} is not what its name says",
            expected=f"a sha256 that starts with {match.group(1)}",
            found=f"{digest[:16]}...",
            remedy="the download is damaged or the file was renamed: fetch it again",
        )


def read_state_dict(path: Path) -> StateDict:
    """Read tensors from ``path`` without running code from it.

    Unwraps a ``state_dict`` or ``model`` key and drops the ``module`` parts of DataParallel.
    Raises WeightsError for what is missing, unreadable, pickled code or not a state dict.
    """
    require_weights_file(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for key in _WRAPPER_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not _is_state_dict(content):
        raise WeightsError(
            f"the file {path} holds no state dict",
            expected="a mapping of names to tensors, bare or under state_dict or model",
            found=_describe(content),
            remedy="save it with torch.save(network.state_dict(), path)",
        )
    return {_plain_name(name): tensor for name, tensor in content.items()}


def load_strictly(network: nn.Module, state_dict: StateDict, *, source: str) -> None:
    """Load every tensor of ``state_dict`` into ``network``, which must want exactly these.

    Raises WeightsError that names the first missing, unexpected and misshapen ones.
    """
    wanted = network.state_dict()
    # Written before torch 0.4.1, a batch norm has no such counter; it plays no part in eval.
    missing = [n for n in wanted if n not in state_dict and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in state_dict if n not in wanted]
    misshapen = [
        f"{n} {list(state_dict[n].shape)} instead of {list(wanted[n].shape)}"
        for n in wanted
        if n in state_dict and state_dict[n].shape != wanted[n].shape
    ]
    findings = {"missing": missing, "unexpected": unexpected, "other shapes": misshapen}
    if any(findings.values()):
        found = "; ".join(f"{what}: {_some(names)}" for what, names in findings.items() if names)
        raise WeightsError(
            f"the weights in {source} are of another network",
            expected=f"the {len(wanted)} tensors of {type(network).__name__}",
            found=found,
            remedy="name the architecture that these weights were trained with",
        )
    network.load_state_dict(state_dict, strict=False)


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"the weights file {path} was refused",
            expected="tensors only",
            found=f"pickled code or another kind of file ({_first_line(error)})",
            remedy="ask for the bare state dict, best as .safetensors",
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"the weights file {path} cannot be read",
        expected="a file written by torch.save or safetensors",
        found=_first_line(error),
        remedy="fetch the file again: it may be cut short",
    )


def _is_state_dict(content: object) -> TypeGuard[Mapping[str, torch.Tensor]]:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items())
    )


def _plain_name(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPER_PARTS)


def _describe(content: object) -> str:
    if isinstance(content, Mapping):
        return f"a mapping with the keys {_some([str(k) for k in content])}" if content else "{}"
    return f"a {type(content).__name__}"


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
