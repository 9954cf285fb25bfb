"""Top-1 and top-5 accuracy of a teacher on a folder of photographs with known classes.

    python benchmarks/teacher_accuracy.py --images images --teacher efficientnet_lite0

A wrong normalisation or channel order raises no error and only lowers accuracy, which this
benchmark shows. The folder holds one file ``<wnid>_<class>.jpg`` per class, so that the sorted
order is the class index. Alternatively, it has one sub-folder per class, in the order of the
classes.
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
    """Return (picture, class index) pairs. Raises DatasetError if classes and entries differ."""
    entries = sorted(p for p in root.iterdir() if p.is_dir() or p.suffix.lower() in SUFFIXES)
    if len(entries) != classes:
        raise DatasetError(
            f"{root} does not have one entry per class of the teacher",
            expected=f"{classes} pictures or sub-folders, one per class",
            found=len(entries),
            remedy="give a folder whose sorted names are the classes in order",
        )
    pairs: list[tuple[Path, int]] = []
    for label, entry in enumerate(entries):
        pictures = sorted(entry.iterdir()) if entry.is_dir() else [entry]
        pairs += [(picture, label) for picture in pictures]
    return pairs


def rank_of_truth(teacher: Teacher, picture: Path, label: int) -> int:
    """Return how many classes the teacher ranks above the true one, for one picture."""
    with Image.open(picture) as image:
        height, width = teacher.view.size_for(image.width, image.height)
        rgb = image.convert("RGB")
        if (height, width) != (image.height, image.width):
            # Replaces ffmpeg's scaler, for a teacher with resize=fast.
            rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
        logits_C = teacher.forward(np.array(rgb)[None])[0]
    return int((logits_C > logits_C[label]).sum())


@click.command(help=__doc__)
@click.option(
    "--images",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of photographs.",
)
@click.option("--teacher", "name", required=True, metavar="NAME", help="Teacher to run.")
@click.option("--weights", metavar="FILE", help="Weights of the teacher.")
@click.option(
    "--resize", type=click.Choice(["exact", "fast"]), default="exact", help="Resize of the teacher."
)
@click.option("--device", default="cpu", help="Device to run the teacher on.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
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
