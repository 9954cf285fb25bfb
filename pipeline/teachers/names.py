"""The names of all teachers, and what to say about a name that is none of them."""

from __future__ import annotations

from distinit.pipeline.teachers.efficientnet_lite import LITE_NAMES
from distinit.pipeline.teachers.null import NULL_NAME
from distinit.pipeline.teachers.torchvision_models import classifier_names
from distinit.schemas.base import PLUGIN
from distinit.schemas.errors import TeacherError
from distinit.schemas.wording import closest_names, did_you_mean, shown

__all__ = ["PLACES", "TIMM", "is_plain_name", "plain_names", "unknown_teacher"]

PLACES = "places365:"
TIMM = "timm:"
_SOURCES = (PLACES, TIMM, PLUGIN)


def plain_names() -> list[str]:
    """All names that need no source in front of them."""
    return [*classifier_names(), *LITE_NAMES, NULL_NAME]


def is_plain_name(name: str) -> bool:
    """Whether ``name``, without a tag such as ``@IMAGENET1K_V2``, is a teacher."""
    return name.partition("@")[0] in plain_names()


def unknown_teacher(name: str) -> TeacherError:
    """The error for a name that no source of teachers has, with the closest names that exist."""
    source, colon, rest = name.partition(":")
    if colon:
        close = closest_names(source, [known.removesuffix(":") for known in _SOURCES], limit=1)
        guess = f"did you mean {close[0]}:{rest}?" if close else None
    else:
        guess = did_you_mean(name.partition("@")[0], plain_names())
    return TeacherError(
        f"there is no teacher {shown(name)}",
        expected="a name that `distinit teachers` lists, or plugin:package.module:function",
        remedy=guess or "list the names with `distinit teachers`",
    )
