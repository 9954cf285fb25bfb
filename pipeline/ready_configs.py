"""Finds the configurations that are installed with the package, by name."""

from __future__ import annotations

from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from distinit.schemas.errors import ConfigError
from distinit.schemas.wording import did_you_mean, shorten

__all__ = ["find_config", "ready_configs"]

_TRAINING = ("distill", "finetune", "scratch")
_SUFFIX = ".yaml"


def ready_configs() -> dict[str, Path]:
    """Name -> file: ``demo_distill``, ``gpus/distill_4gpu``, ``paper/distill``, ... in order."""
    folder = Path(str(files("distinit.configs")))
    paths = sorted(folder.rglob(f"*{_SUFFIX}"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


def find_config(file: Path) -> Path:
    """``file`` if it exists, else the installed configuration of this name.

    ``demo_distill``, ``demo_distill.yaml`` and ``configs/demo_distill.yaml`` are the same name.
    Raises ConfigError if there is neither, with the names that are most like ``file``.
    """
    with suppress(OSError):  # such as a name that is too long for a file
        if file.exists():
            return file
    ready = ready_configs()
    name = file.as_posix().removesuffix(_SUFFIX).removeprefix("configs/")
    if name not in ready:
        raise _unknown(file, name, list(ready))
    return ready[name]


def _unknown(file: Path, name: str, ready: list[str]) -> ConfigError:
    last_part = name.rpartition("/")[2]
    similar = [each for each in ready if each.rpartition("/")[2] == last_part]
    training = [each for each in ready if any(word in each for word in _TRAINING)]
    return ConfigError(
        f"there is no configuration {shorten(str(file))}",
        expected=f"the path of a YAML file, or a name such as {', '.join(training)}",
        found="no such file",
        remedy=f"did you mean {similar[0]}?" if similar else did_you_mean(name, ready),
    )
