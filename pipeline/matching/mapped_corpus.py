"""The corpus of a frame store that is built from a receiver's own copies."""

from __future__ import annotations

from pathlib import Path

from distinit.pipeline.corpus.listing import Corpus, list_files
from distinit.pipeline.matching.mapping import Mapping
from distinit.schemas.errors import ConfigError, CorpusError, MatchError
from distinit.schemas.wording import counted, first_names

__all__ = ["list_matched"]


def list_matched(mapping: Mapping, videos: str) -> Corpus:
    """The usable copies of a mapping file below the folder ``videos``, hashed again.

    Raises ConfigError if ``videos`` is not a folder, CorpusError for copies that are missing or
    cannot be read, MatchError if there is no usable copy or some have changed since the match.
    """
    root = Path(videos)
    if not root.is_dir():
        raise ConfigError(
            "a mapping file names copies by their path below a folder",
            expected="--videos with the folder that `distinit cache match` had",
            found=videos,
            remedy="give that folder",
        )
    usable = {video.copy_path: video for video in mapping.usable}
    if not usable:
        raise MatchError(
            "the mapping file has no usable copy of any video",
            expected="a mapping with usable copies",
            remedy="see what `distinit cache match` reports about each video",
        )
    try:
        corpus = list_files(root, sorted(usable))
    except CorpusError as error:
        raise CorpusError(
            "copies that the mapping file names cannot be read",
            expected=error.expected,
            found=error.found,
            remedy="give the folder that `distinit cache match` had, or run it again",
        ) from error
    changed = [file.path for file in corpus.files if file.digest != usable[file.path].copy_digest]
    if changed:
        raise MatchError(
            f"{counted(len(changed), 'copy', 'copies')} changed since the match",
            expected="the bytes that were matched",
            found=first_names(sorted(changed)),
            remedy="run `distinit cache match` again",
        )
    return corpus
