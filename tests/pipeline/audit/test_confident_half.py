"""The classes of the more confident half, beside their share of all frames."""

from __future__ import annotations

import numpy as np

from distinit.pipeline.audit.confident_half import confident_half
from distinit.pipeline.audit.scan import ConfidenceScan
from distinit.pipeline.audit.units import ConfidenceRows


def test_the_half_is_what_the_first_threshold_keeps() -> None:
    entropies = [0.5, 0.5, 0.75, 1.0, 3.0, 4.0, 5.0, 6.0]
    classes = [7, 7, 2, 7, 7, 2, 1, 1]
    scan = ConfidenceScan(1, 1000)
    scan.add(
        ConfidenceRows(
            row_N=np.arange(8),
            video_N=np.zeros(8, np.int64),
            frame_index_N=np.arange(8),
            entropy_nats_N=np.array(entropies, np.float32),
            top1_class_N=np.array(classes, np.int32),
            top1_probability_N=np.full(8, 0.5, np.float32),
        )
    )
    half = confident_half(scan, ("a", "b", "cat"), 5)
    assert (half.max_entropy_nats, half.frames, half.classes) == (1.0, 4, 2)
    assert half.classes_of_half == 1
    assert [(c.class_index, c.name, c.frames) for c in half.top_classes] == [
        (7, "class 7", 3),
        (2, "cat", 1),
    ]
    assert [(c.share_of_half, c.share_of_all) for c in half.top_classes] == [
        (0.75, 0.5),
        (0.25, 0.25),
    ]
    assert [c.name for c in confident_half(scan, (), 1).top_classes] == ["class 7"]
