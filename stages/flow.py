"""Computes a flow store from an RGB frame store, for students of optical flow."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import Field

from distinit.pipeline.frames.build_flow import build_flow_store
from distinit.pipeline.frames.commits import read_manifest
from distinit.pipeline.frames.writer import store_lock
from distinit.pipeline.output_paths import refuse_inside_data
from distinit.pipeline.progress import NullProgress, Progress
from distinit.schemas.base import Record
from distinit.schemas.frames import FlowConfig
from distinit.schemas.wording import counted, one_line, shell_line

__all__ = ["FlowResult", "build_flow"]


class FlowResult(Record):
    """Contents of a flow store that was built."""

    flow_store: str = Field(description="folder of the flow store")
    videos: int = Field(description="videos in the store")
    frames: int = Field(description="frames of flow in the store")
    flow_range: float = Field(description="largest motion kept, pixels per frame")
    seconds: float = Field(description="duration of the build")

    def summary(self) -> str:
        """Counts, the path of the store, and the next command."""
        return "\n".join(
            [
                f"flow of {counted(self.frames, 'frame')} of {counted(self.videos, 'video')} "
                f"in {self.seconds:.1f} s, "
                f"up to {self.flow_range:g} pixels per frame",
                f"flow    {one_line(self.flow_store)}",
                "",
                f"next: {shell_line(self._next())}",
            ]
        )

    def _next(self) -> list[str]:
        student = ["--student", "r2plus1d_18", "--set", "student.in_channels=2"]
        inputs = ["--cache", "CACHE", "--frames", self.flow_store]
        return ["distinit", "distill", *inputs, *student, "--out", "RUN"]


def build_flow(config: FlowConfig, *, progress: Progress | None = None) -> FlowResult:
    """Compute the flow of every frame of an RGB store; resumes an unfinished flow store.

    Raises LockedError while another process is writing the flow store, and whatever
    ``build_flow_store`` raises.
    """
    began = time.monotonic()
    refuse_inside_data(Path(config.out).parent)
    read_manifest(Path(config.frames))  # nothing is created for frames that do not exist
    with store_lock(Path(config.out)):
        store = build_flow_store(config, progress or NullProgress())
    return FlowResult(
        flow_store=config.out,
        videos=len(store.videos),
        frames=sum(video.frame_count for video in store.videos.values()),
        flow_range=config.flow_range,
        seconds=round(time.monotonic() - began, 2),
    )
