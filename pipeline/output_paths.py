"""Recognises caches and frame stores. Results are never written inside of one."""

from __future__ import annotations

from pathlib import Path

from distinit.schemas.errors import ConfigError

__all__ = ["kind_of_data", "refuse_inside_data", "refuse_nameless", "refuse_nested"]

_MARKS = {"target cache": ("manifest.json", "plan.parquet"), "frame store": ("store.json",)}


def kind_of_data(folder: Path) -> str | None:
    """``target cache`` or ``frame store``, by the files in the folder; None for other folders."""
    for kind, names in _MARKS.items():
        if all((folder / name).is_file() for name in names):
            return kind
    return None


def refuse_inside_data(out: Path) -> None:
    """Raise ConfigError if ``out`` is a target cache or a frame store, or lies inside of one.

    Its verification would fail because of the additional files.
    """
    place = out.resolve()
    for folder in (place, *place.parents):
        if (kind := kind_of_data(folder)) is not None:
            raise _nested(out, folder, f"a {kind}")


def refuse_nameless(out: Path) -> None:
    """Raise ConfigError if ``out`` has no last part to name a new file: ``.``, ``/`` or ``x/..``.

    To be called before another name is derived from it.
    """
    if out.name in ("", ".."):
        raise ConfigError(
            f"{out} does not name a new file or folder",
            expected="a path that ends in a name",
            remedy="add a name for what is written",
        )


def refuse_nested(cache: Path, frames: Path) -> None:
    """Raise ConfigError if one of the two folders is the other one, or lies inside of it."""
    first, second = cache.resolve(), frames.resolve()
    if first.is_relative_to(second):
        raise _nested(cache, frames, "the frame store")
    if second.is_relative_to(first):
        raise _nested(frames, cache, "the target cache")


def _nested(out: Path, folder: Path, kind: str) -> ConfigError:
    return ConfigError(
        f"{out} lies inside {folder}, {kind}: nothing else is written there",
        expected="a separate folder",
        remedy="choose another folder",
    )
