"""Top-1 and top-5 accuracy of a teacher on a folder of photographs with known classes.

    python benchmarks/teacher_accuracy.py --images images --teacher efficientnet_lite0

A wrong normalisation or channel order does not fail, it only costs accuracy: this shows it.
The file names are ``<wnid>_<class>.jpg``, one per class, so that their sorted order is the
class index. Or give one sub-folder per class, in the order of the classes.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
from PIL import Image

from distinit.pipeline.teachers.base import Teacher
from distinit.pipeline.teachers.registry import load_teacher
from distinit.schemas.errors import DatasetError, DistInitError
from distinit.schemas.teacher import TeacherRequest

SUFFIXES = {".jpg", ".jpeg", ".png"}


def list_labelled(root: Path, classes: int) -> list[tuple[Path, int]]:
    """(picture, class index) pairs. Raises DatasetError if there is not one entry a class."""
    entries = sorted(p for p in root.iterdir() if p.is_dir() or p.suffix.lower() in SUFFIXES)
    if len(entries) != classes:
        raise DatasetError(
            f"{root} does not list the teacher's classes",
            expected=f"{classes} pictures or sub-folders, one a class",
            found=len(entries),
            remedy="give a folder whose sorted names are the classes in order",
        )
    pairs: list[tuple[Path, int]] = []
    for label, entry in enumerate(entries):
        pictures = sorted(entry.iterdir()) if entry.is_dir() else [entry]
        pairs += [(picture, label) for picture in pictures]
    return pairs


def rank_of_truth(teacher: Teacher, picture: Path, label: int) -> int:
    """How many classes the teacher finds likelier than the true one, for one picture."""
    with Image.open(picture) as image:
        height, width = teacher.view.size_for(image.width, image.height)
        rgb = image.convert("RGB")
        if (height, width) != (image.height, image.width):
            # Stands in for ffmpeg's scaler, for a teacher with resize=fast.
            rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
        logits_C = teacher.forward(np.array(rgb)[None])[0]
    return int((logits_C > logits_C[label]).sum())


@click.command(help=__doc__)
@click.option(
    "--images", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--teacher", "name", required=True, metavar="NAME")
@click.option("--weights", metavar="FILE")
@click.option("--resize", type=click.Choice(["exact", "fast"]), default="exact")
@click.option("--device", default="cpu")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def main(
    images: Path, name: str, weights: str | None, resize: str, device: str, as_json: bool
) -> None:
    try:
        request = TeacherRequest.model_validate(
            {"name": name, "weights": weights, "resize": resize}
        )
        teacher = load_teacher(request, device=device)
        pairs = list_labelled(images, teacher.identity.classes)
        ranks = np.array([rank_of_truth(teacher, picture, label) for picture, label in pairs])
    except DistInitError as error:
        raise click.ClickException(str(error)) from error
    top1, top5 = float((ranks < 1).mean()), float((ranks < 5).mean())
    if as_json:
        click.echo(
            json.dumps({"teacher": teacher.id, "pictures": len(ranks), "top1": top1, "top5": top5})
        )
    else:
        click.echo(f"{teacher.id}: top-1 {top1:.1%}, top-5 {top5:.1%} of {len(ranks)} pictures")


if __name__ == "__main__":
    main()
