"""Decodes videos with one ffmpeg process each: every frame, and a report of what is missing."""

from distinit.pipeline.video.binary import FFmpeg, find_ffmpeg
from distinit.pipeline.video.blocks import FrameBlock
from distinit.pipeline.video.decode import DecodeSummary, VideoStream, open_video
from distinit.pipeline.video.hashing import hamming_distance, perceptual_hash
from distinit.pipeline.video.probe import VideoProbe, probe_video
from distinit.pipeline.video.views import View

__all__ = [
    "DecodeSummary",
    "FFmpeg",
    "FrameBlock",
    "VideoProbe",
    "VideoStream",
    "View",
    "find_ffmpeg",
    "hamming_distance",
    "open_video",
    "perceptual_hash",
    "probe_video",
]
