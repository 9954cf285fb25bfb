"""DistInit: pretrain video networks from frozen image networks, without video labels.

The names in ``__all__`` are the public API: see docs/api.md. Each is imported when it is first
used, so that ``import distinit`` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distinit.pipeline.cache.reader import TargetCache
    from distinit.pipeline.cache.teacher_targets import TeacherTargets
    from distinit.pipeline.cache.video_targets import VideoTargets
    from distinit.pipeline.evaluation.feature_files import FeatureTable, read_features
    from distinit.pipeline.frames.reader import FrameStore
    from distinit.pipeline.inference.features import VideoFeatures, extract_features
    from distinit.pipeline.inference.student import TrainedStudent, load_student
    from distinit.pipeline.teachers.plugin import TeacherParts
    from distinit.schemas.errors import DistInitError
    from distinit.schemas.features import FeaturesRecord
    from distinit.schemas.teacher import PreprocessSpec

    __version__: str

__all__ = [
    "DistInitError",
    "FeatureTable",
    "FeaturesRecord",
    "FrameStore",
    "PreprocessSpec",
    "TargetCache",
    "TeacherParts",
    "TeacherTargets",
    "TrainedStudent",
    "VideoFeatures",
    "VideoTargets",
    "__version__",
    "extract_features",
    "load_student",
    "read_features",
]

_MODULES = {
    "DistInitError": "distinit.schemas.errors",
    "FeatureTable": "distinit.pipeline.evaluation.feature_files",
    "FeaturesRecord": "distinit.schemas.features",
    "FrameStore": "distinit.pipeline.frames.reader",
    "PreprocessSpec": "distinit.schemas.teacher",
    "TargetCache": "distinit.pipeline.cache.reader",
    "TeacherParts": "distinit.pipeline.teachers.plugin",
    "TeacherTargets": "distinit.pipeline.cache.teacher_targets",
    "TrainedStudent": "distinit.pipeline.inference.student",
    "VideoFeatures": "distinit.pipeline.inference.features",
    "VideoTargets": "distinit.pipeline.cache.video_targets",
    "extract_features": "distinit.pipeline.inference.features",
    "load_student": "distinit.pipeline.inference.student",
    "read_features": "distinit.pipeline.evaluation.feature_files",
}

if not TYPE_CHECKING:  # for a type checker, a misspelt name is then an error

    def __getattr__(name: str) -> Any:
        """Import a public name, or read the version of the installed package."""
        if name == "__version__":
            from importlib.metadata import version

            value = version("distinit")  # pyproject.toml has it
        elif name in _MODULES:
            value = getattr(import_module(_MODULES[name]), name)
        else:
            raise AttributeError(f"module 'distinit' has no attribute '{name}'")
        globals()[name] = value  # the next access does not come here
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
