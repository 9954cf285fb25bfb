"""Lists the folder of a cache: published files, files of a writer, links and special files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.cache.layout import CacheLayout

__all__ = ["Tree", "leftovers", "list_tree"]


@dataclass(frozen=True, slots=True)
class Tree:
    """Paths relative to the root, with forward slashes, sorted.

    Attributes:
        files: Regular files, except the private ones, the list of checksums and the signature.
        private: Files of writers: the files ``.lock`` and ``.fence``, and all in ``.staging``.
        special: Links, pipes, devices and sockets, wherever they are. They must not be opened.
    """

    files: tuple[str, ...]
    private: tuple[str, ...]
    special: tuple[str, ...]


def list_tree(layout: CacheLayout) -> Tree:
    """List the folder without following links or opening files."""
    unlisted = {layout.checksums.name, layout.signature.name}
    private_names = {layout.lock.name, layout.fence.name}
    staging = f"{layout.staging.name}/"
    files, private, special = [], [], []
    folders = [layout.root] if layout.root.is_dir() else []
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                name = layout.relative(Path(entry.path))
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    special.append(name)
                elif name in private_names or name.startswith(staging):
                    private.append(name)
                elif name not in unlisted:
                    files.append(name)
    return Tree(*(tuple(sorted(names)) for names in (files, private, special)))


def leftovers(layout: CacheLayout, tree: Tree, complete: bool) -> tuple[list[str], list[str]]:
    """What writers left in the folder: (problems, notes). An empty lock file is allowed."""
    problems, notes = [], []
    for name in tree.private:
        if complete and name.startswith(f"{layout.staging.name}/"):
            problems.append(f"{name}: left behind by a writer, not part of the cache")
        elif name != layout.lock.name or (layout.root / name).lstat().st_size:
            notes.append(f"{name}: a process is writing this cache, or was killed")
    return problems, notes
