"""What lies in the folder of a cache: its files, a writer's private ones, and what must not be."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.cache.layout import CacheLayout

__all__ = ["Tree", "list_tree"]


@dataclass(frozen=True, slots=True)
class Tree:
    """Paths relative to the root, with forward slashes, sorted.

    Attributes:
        files: All regular files but the private ones and the list of checksums.
        private: Those of writers: ``.lock``, ``.fence``, ``.staging`` and all below it.
        odd: Links, pipes, devices, sockets, wherever they are. Nothing may be read through them.
    """

    files: tuple[str, ...]
    private: tuple[str, ...]
    odd: tuple[str, ...]


def list_tree(layout: CacheLayout) -> Tree:
    """List the folder; no link is followed and no file is opened."""
    private_names = {layout.lock.name, layout.fence.name, layout.staging.name}
    files, private, odd = [], [], []
    folders = [layout.root] if layout.root.is_dir() else []
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                name = layout.relative(Path(entry.path))
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    odd.append(name)
                elif name.split("/", 1)[0] in private_names:
                    private.append(name)
                elif name != layout.checksums.name:
                    files.append(name)
    return Tree(*(tuple(sorted(names)) for names in (files, private, odd)))
