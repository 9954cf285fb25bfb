"""Builds students by name, and checks that they fit their clips."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import nn

from distinit.pipeline.plugins import find_function, in_words, plugin_errors
from distinit.pipeline.students.base import VideoBackbone, as_backbone
from distinit.pipeline.students.tiny import TINY_STUDENTS
from distinit.pipeline.students.torchvision_nets import (
    CLASSIFIERS,
    SMALLEST_CLIPS,
    build_torchvision,
)
from distinit.pipeline.students.vmz import VMZ_STUDENTS, build_vmz
from distinit.schemas.base import PLUGIN
from distinit.schemas.errors import ConfigError
from distinit.schemas.training import ClipConfig, StudentConfig
from distinit.schemas.wording import did_you_mean, shell_line

__all__ = ["STUDENT_NAMES", "build_student", "check_clip", "require_named_plugin"]

STUDENT_NAMES = (*CLASSIFIERS, *VMZ_STUDENTS, *TINY_STUDENTS)

_SIGNATURE = "function(in_channels) -> a network (torch.nn.Module) with feature_dim"


def build_student(config: StudentConfig) -> VideoBackbone:
    """Build a backbone with random weights, drawn from torch's global generator.

    ``plugin:package.module:function`` calls ``function(in_channels)``, which must return an
    ``nn.Module`` with an integer ``feature_dim``.

    Raises ConfigError for an unknown name, or if a plugin cannot be imported or returns something
    else.
    """
    if config.name.startswith(PLUGIN):
        return _from_plugin(config)
    if config.name in CLASSIFIERS:
        return build_torchvision(config.name, config.in_channels)
    if config.name in VMZ_STUDENTS:
        return build_vmz(config.name, config.in_channels)
    if config.name in TINY_STUDENTS:
        return as_backbone(TINY_STUDENTS[config.name](config.in_channels))
    raise _unknown(config)


def require_named_plugin(found: StudentConfig, named: str | None, source: Path) -> None:
    """Raise ConfigError if ``found`` is a plugin other than ``named``, which the user gave.

    ``found`` was read from the file ``source``. A plugin is code, and the file may come from an
    attacker, so a plugin that only the file names is never imported.
    """
    if found.name.startswith(PLUGIN) and found.name != named:
        raise ConfigError(
            f"{source} names a plugin as its network, which only runs if you name it too",
            expected="the same plugin on the command line or in your configuration",
            found=found.name,
            remedy=f"if you know and trust this code, add --student {shell_line([found.name])}",
        )


def check_clip(student: StudentConfig, clip: ClipConfig) -> None:
    """Raise ConfigError unless the student exists and accepts clips of this shape.

    The network of a plugin is built, and run on two clips of this shape on the CPU.
    """
    is_plugin = student.name.startswith(PLUGIN)
    if not is_plugin and student.name not in STUDENT_NAMES:
        raise _unknown(student)
    if len(clip.mean) != student.in_channels or len(clip.std) != student.in_channels:
        raise ConfigError(
            "the clip's mean and std do not fit the student's input",
            expected=f"{student.in_channels} values each",
            found=f"mean {len(clip.mean)}, std {len(clip.std)}",
            remedy="set clip.mean and clip.std to one value per channel",
        )
    frames, crop = SMALLEST_CLIPS.get(student.name, (1, 1))
    if clip.frames < frames or clip.crop < crop:
        raise ConfigError(
            f"the clips are too small for the pooling of {student.name}",
            expected=f"clip.frames of at least {frames} and clip.crop of at least {crop}",
            found=f"clip.frames {clip.frames}, clip.crop {clip.crop}",
            remedy="use longer or larger clips, or another student",
        )
    if is_plugin:
        _dry_run(student, clip)


def _unknown(config: StudentConfig) -> ConfigError:
    return ConfigError(
        f"unknown student {config.name}",
        expected=", ".join(STUDENT_NAMES) + ", or plugin:module:function",
        remedy=did_you_mean(config.name, STUDENT_NAMES) or "choose one of these names",
    )


def _from_plugin(config: StudentConfig) -> VideoBackbone:
    function, _ = find_function(config.name, error=ConfigError, signature=_SIGNATURE)
    with plugin_errors(ConfigError, f"{config.name} failed", expected=_SIGNATURE):
        module = function(config.in_channels)
    return as_backbone(module, name=config.name)


def _dry_run(config: StudentConfig, clip: ClipConfig) -> None:
    """Run a plugin's network on two clips, and raise ConfigError unless its features fit."""
    shape = (2, config.in_channels, clip.frames, clip.crop, clip.crop)
    with torch.random.fork_rng(devices=[]):
        backbone = _from_plugin(config)
        clip_BCTHW = torch.randn(shape)
    module = cast("nn.Module", backbone).eval()
    with (
        plugin_errors(
            ConfigError,
            f"the network of {config.name} failed on two clips",
            expected=f"a network that takes clips of shape {list(shape)}",
        ),
        torch.inference_mode(),
    ):
        output = module(clip_BCTHW)
    wanted = [len(clip_BCTHW), backbone.feature_dim]
    if not isinstance(output, torch.Tensor) or list(output.shape) != wanted:
        raise ConfigError(
            f"the output of the network of {config.name} does not fit its feature_dim",
            expected=f"a tensor of shape {wanted} for two clips (feature_dim is {wanted[1]})",
            found=in_words(output),
            remedy="set feature_dim to the width of the output, and return one row per clip",
        )
    if not output.isfinite().all():
        raise ConfigError(
            f"the network of {config.name} computes values that are not finite",
            expected="finite features for clips of normally distributed values",
            found="NaN or infinity",
            remedy="check how the plugin initialises its weights",
        )
