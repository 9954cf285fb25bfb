"""Compare teacher outputs after our resize with those after torchvision's transform.

    python benchmarks/resize_study.py [--videos VIDEOS] [--stride 5] [--teacher NAME] [--json]

The reference shares only the network with extraction: PyAV decodes, and torchvision's
classification preset resizes, crops and normalises. The preset accepts a tensor or a Pillow image,
and the outputs differ, because Pillow rounds between the two passes of its scaler. Both are shown.
A resize that differs less from the reference than these two from each other is indistinguishable
from it. ``exact`` and ``fast`` are the two values of a teacher's ``resize``. KL is the divergence
from the reference to our output, in nats.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import av
import click
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from distinit.pipeline.cache.confidence import Fidelity, fidelity_of
from distinit.pipeline.corpus.listing import list_corpus
from distinit.pipeline.demo.footage import make_corpus
from distinit.pipeline.demo.recipe import CutClip, demo_clips
from distinit.pipeline.teachers.base import NetworkTeacher
from distinit.pipeline.teachers.registry import load_network, load_teacher
from distinit.pipeline.video.decode import open_video
from distinit.schemas.errors import DecodeError, DistInitError
from distinit.schemas.teacher import PreprocessSpec, TeacherRequest
from distinit.schemas.video import DecodeConfig

RESIZES = ("exact", "fast")
REFERENCES = ("tensor", "Pillow")
_INTERPOLATION = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


class Reference:
    """The network after torchvision's preset, one picture at a time."""

    def __init__(self, request: TeacherRequest) -> None:
        network = load_network(request, device="cpu")
        self._module = network.module.eval()
        self._transform = preset(network.identity.preprocessing)

    def outputs(self, path: Path, stride: int) -> tuple[dict[str, np.ndarray], int]:
        """Return logits [N, C] of every ``stride``-th frame per form, and the total frame count."""
        logits: dict[str, list[torch.Tensor]] = {form: [] for form in REFERENCES}
        count = 0
        with av.open(str(path)) as container, torch.inference_mode():
            for count, frame in enumerate(container.decode(video=0), start=1):
                if (count - 1) % stride:
                    continue
                frame_HWC = frame.to_ndarray(format="rgb24")
                tensor_CHW = torch.from_numpy(frame_HWC).permute(2, 0, 1)
                for form, picture in zip(
                    REFERENCES, (tensor_CHW, Image.fromarray(frame_HWC)), strict=True
                ):
                    logits[form].append(self._module(self._transform(picture)[None])[0])
        return {form: torch.stack(rows).numpy() for form, rows in logits.items()}, count


def preset(spec: PreprocessSpec) -> ImageClassification:
    """Return torchvision's transform for this teacher."""
    if spec.resize_mode != "short_edge" or spec.channel_order != "rgb":
        raise click.ClickException(
            "torchvision's preset can only resize the short edge and keep RGB"
        )
    return ImageClassification(
        crop_size=spec.crop_size,
        resize_size=spec.resize_size,
        mean=spec.mean,
        std=spec.std,
        interpolation=_INTERPOLATION[spec.interpolation],
        antialias=spec.antialias,
    )


def sampled_blocks(
    path: Path, teacher: NetworkTeacher, stride: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield logits of every ``stride``-th frame of each block, and the block's frame count."""
    with open_video(path, {"view": teacher.view}, DecodeConfig()) as stream:
        for block in stream:
            first = -block.first_index % stride
            yield teacher.forward(block.views["view"][first::stride]), len(block)


def ours(path: Path, teacher: NetworkTeacher, stride: int) -> tuple[np.ndarray, int]:
    """Return logits and frame count, using the decoder and preprocessing of extraction."""
    blocks = list(sampled_blocks(path, teacher, stride))
    return np.concatenate([logits for logits, _ in blocks]), sum(count for _, count in blocks)


class Row(TypedDict):
    """A row of the table."""

    resize: str
    reference: str
    top1_agreement: float
    mean_kl_nats: float
    max_kl_nats: float


class Study(TypedDict):
    """The object that ``--json`` prints."""

    videos: int
    frames: int
    table: list[Row]


@dataclass
class Losses:
    """Differences between a resize and the reference, per frame."""

    kl_nats: list[np.ndarray] = field(default_factory=list)
    agrees: list[np.ndarray] = field(default_factory=list)

    def add(self, lost: Fidelity) -> None:
        self.kl_nats.append(lost.kl_nats)
        self.agrees.append(lost.top1_agrees)

    def row(self, resize: str, reference: str) -> Row:
        kl_N, agrees_N = np.concatenate(self.kl_nats), np.concatenate(self.agrees)
        return {
            "resize": resize,
            "reference": reference,
            "top1_agreement": float(agrees_N.mean()),
            "mean_kl_nats": float(kl_N.mean()),
            "max_kl_nats": float(kl_N.max()),
        }


def study(paths: Sequence[Path], name: str, stride: int) -> Study:
    """Return the table over all videos for which PyAV and extraction count the same frames."""
    reference = Reference(TeacherRequest(name=name))
    teachers = {}
    for resize in RESIZES:
        teacher = load_teacher(TeacherRequest(name=name, resize=resize), device="cpu")
        if not isinstance(teacher, NetworkTeacher):
            raise click.ClickException(f"{name} has no network to compare")
        teachers[resize] = teacher
    found: dict[tuple[str, str], Losses] = {}
    used: list[int] = []
    for path in paths:
        try:
            expected, count = reference.outputs(path, stride)
            outputs = {resize: ours(path, t, stride) for resize, t in teachers.items()}
        except (DecodeError, av.FFmpegError) as error:
            click.echo(f"left out: {error}", err=True)
            continue
        if any(decoded != count for _, decoded in outputs.values()):
            click.echo(f"left out: {path}: PyAV decodes {count} frames", err=True)
            continue
        logits = {resize: logits_NC for resize, (logits_NC, _) in outputs.items()}
        logits["(Pillow)"] = expected["Pillow"]
        used.append(len(logits["(Pillow)"]))
        for resize, form in (("(Pillow)", "tensor"), *itertools.product(RESIZES, REFERENCES)):
            lost = fidelity_of(expected[form], logits[resize])
            found.setdefault((resize, form), Losses()).add(lost)
    table = [lost.row(resize, form) for (resize, form), lost in found.items()]
    return {"videos": len(used), "frames": sum(used), "table": table}


def default_videos(folder: Path) -> Path:
    """Build the demo clips that are real footage, without those made from photographs."""
    clips = tuple(clip for clip in demo_clips() if isinstance(clip, CutClip))
    return make_corpus(folder, clips=clips).corpus


@click.command(help=__doc__)
@click.option("--videos", help="Folder or list of videos. [default: the demo's real footage]")
@click.option(
    "--stride",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="Compare every N-th frame.",
)
@click.option(
    "--teacher", "name", default="efficientnet_lite0", show_default=True, help="Teacher to run."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(videos: str | None, stride: int, name: str, as_json: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            corpus = list_corpus(videos or str(default_videos(Path(folder))))
            result = study([corpus.root / file.path for file in corpus.files], name, stride)
        except DistInitError as error:
            raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(f"{name}: {result['frames']} frames of {result['videos']} videos")
    click.echo("| resize | reference | same top class | mean KL, nats | max KL, nats |")
    click.echo("|---|---|---|---|---|")
    for row in result["table"]:
        click.echo(
            f"| {row['resize']} | {row['reference']} | {row['top1_agreement']:.1%} "
            f"| {row['mean_kl_nats']:.2g} | {row['max_kl_nats']:.2g} |"
        )


if __name__ == "__main__":
    main()
