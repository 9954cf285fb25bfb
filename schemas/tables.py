"""Arrow schemas of the published tables. Other programs rely on the names of their columns."""

from __future__ import annotations

import pyarrow as pa

__all__ = [
    "AUDIT_CLASSES_SCHEMA",
    "AUDIT_THRESHOLDS_SCHEMA",
    "AUDIT_VIDEOS_SCHEMA",
    "CONFIDENCE_SCHEMA",
    "COPIES_SCHEMA",
    "FEATURES_SCHEMA",
    "FEATURE_ROWS_SCHEMA",
    "FRAMES_SCHEMA",
    "MATCH_SCHEMA",
    "PLAN_SCHEMA",
    "SCORES_SCHEMA",
    "STORE_SCHEMA",
    "VIDEOS_SCHEMA",
]

VIDEOS_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),  # relative to the corpus root
        pa.field("digest", pa.string(), nullable=False),  # sha256 of the file's bytes
        pa.field("width", pa.int32(), nullable=False),  # pixels, after rotation
        pa.field("height", pa.int32(), nullable=False),
        pa.field("frame_count", pa.int64(), nullable=False),  # decoded frames, not the container's
        pa.field("duration_seconds", pa.float64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # ok | failed | gone
        pa.field("error", pa.string()),  # why it failed
        pa.field("in_corpus", pa.bool_(), nullable=False),  # false: do not train on it
        pa.field("damage", pa.string()),  # of a video with status ok
    ]
)

PLAN_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("probed_frames", pa.int64(), nullable=False),
        pa.field("probed_fps", pa.float64(), nullable=False),  # 0: unknown
        pa.field("first_row", pa.int64(), nullable=False),
        pa.field("reserved_rows", pa.int64(), nullable=False),
        pa.field("task", pa.int64(), nullable=False),  # first unit of the task that decodes it
        pa.field("in_corpus", pa.bool_(), nullable=False),
    ]
)

FRAMES_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("frame_index", pa.int64(), nullable=False),  # 0-based, in display order
        pa.field("pts", pa.int64(), nullable=False),  # in units of time_base
        pa.field("time_base", pa.string(), nullable=False),  # in seconds, e.g. "1/12800"
        pa.field("perceptual_hash", pa.uint64(), nullable=False),
    ]
)

CONFIDENCE_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("entropy_nats", pa.float32(), nullable=False),
        pa.field("top1_class", pa.int32(), nullable=False),
        pa.field("top1_probability", pa.float32(), nullable=False),
        pa.field("margin", pa.float32(), nullable=False),  # top-1 minus top-2 probability
        pa.field("log_z", pa.float32(), nullable=False),  # logsumexp of the fp32 logits, nats
    ]
)

# Features are not a distribution and have no confidence: their table has the rows only.
FEATURE_ROWS_SCHEMA = pa.schema([pa.field("row", pa.int64(), nullable=False)])

STORE_SCHEMA = pa.schema(
    [
        # Plain strings, because an Arrow file cannot replace a dictionary between batches.
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("frame_index", pa.int64(), nullable=False),
        pa.field("jpeg", pa.binary(), nullable=False),
        # Over the video id (ASCII), the frame index (8 bytes, little-endian), then the JPEG.
        pa.field("crc32c", pa.uint32(), nullable=False),
    ]
)

FEATURES_SCHEMA = pa.schema(
    [
        pa.field("digest", pa.string(), nullable=False),  # sha256 of the file's bytes
        pa.field("path", pa.string(), nullable=False),  # relative to the dataset's root
        pa.field("label", pa.string(), nullable=False),  # name of the class
        pa.field("subset", pa.string(), nullable=False),  # train | val | test
        pa.field("clip_count", pa.int64(), nullable=False),  # clips that were averaged
        pa.field("feature", pa.list_(pa.float32()), nullable=False),
    ]
)

# One row per distinct clip of an evaluation, in the order of the test videos and of the starts.
# Last come the videos that could not be decoded, each with one row: all their clips count as wrong.
SCORES_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),  # of the video, relative to the dataset
        pa.field("video_id", pa.string()),  # null: the video could not be decoded
        pa.field("label", pa.int32(), nullable=False),  # index of the true class
        pa.field("start_frame", pa.int64()),
        pa.field("crop_top", pa.int32()),  # pixels
        pa.field("crop_left", pa.int32()),
        pa.field("weight", pa.int32(), nullable=False),  # how often the protocol counts the clip
        # fp32 [classes], before the softmax: from them, any average can be computed.
        pa.field("logits", pa.list_(pa.field("element", pa.float32(), nullable=False))),
    ]
)

# The mapping file of ``cache match``: one row per video of the cache; see schemas/matching.py.
MATCH_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("frame_count", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("usable", pa.bool_(), nullable=False),
        pa.field("copy_path", pa.string(), nullable=False),  # empty: there is no copy
        pa.field("copy_digest", pa.string(), nullable=False),
        pa.field("copy_frame_count", pa.int64(), nullable=False),
        pa.field("shift_frames", pa.int64(), nullable=False),
        pa.field("agreeing_share", pa.float64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)

# What a match keeps next to its mapping file: the receiver's files.
COPIES_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
    ]
)

# What an audit writes next to its report: the numbers of one teacher after the other.
AUDIT_THRESHOLDS_SCHEMA = pa.schema(
    [
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("max_entropy_nats", pa.float64(), nullable=False),  # the threshold
        pa.field("kept_frames", pa.int64(), nullable=False),
        pa.field("kept_clips_share", pa.float64()),  # as distillation draws clips; null: no clips
        pa.field("kept_videos", pa.int64(), nullable=False),  # with at least one frame kept
        pa.field("classes_left", pa.int64(), nullable=False),
    ]
)

AUDIT_CLASSES_SCHEMA = pa.schema(
    [
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("class_index", pa.int32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("frames", pa.int64(), nullable=False),  # with this most probable class
        pa.field("mean_entropy_nats", pa.float64()),  # of these frames; null: there are none
    ]
)

AUDIT_VIDEOS_SCHEMA = pa.schema(
    [
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),  # relative to the corpus root
        pa.field("frames", pa.int64(), nullable=False),
        pa.field("mean_entropy_nats", pa.float64(), nullable=False),
        pa.field("entropy_spread_nats", pa.float64(), nullable=False),  # standard deviation
        pa.field("lowest_entropy_nats", pa.float32(), nullable=False),
        pa.field("highest_entropy_nats", pa.float32(), nullable=False),
    ]
)
