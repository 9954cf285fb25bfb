"""Makes a vocabulary with open_clip from a list of names, prompt templates and local weights.

    python examples/clip_vocabulary.py ViT-B-32 weights.pt names.txt birds.safetensors \\
        --architecture ARCHITECTURE --template "a photo of a {}."

ARCHITECTURE: `architecture` of the image teacher, as in `distinit cache info CACHE --json`.
open_clip (``pip install open_clip_torch``) is not a dependency of distinit. Nothing is downloaded
if the weights are a local file.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch

from distinit.pipeline.vocabulary.files import write_vocabulary
from distinit.schemas.vocabulary import VocabularyMetadata


@click.command()
@click.argument("model")
@click.argument("weights", type=click.Path(exists=True, dir_okay=False))
@click.argument("names_file", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--architecture", required=True, help="Architecture of the image teacher.")
@click.option("--template", "templates", multiple=True, default=("a photo of a {}.",))
@torch.no_grad()
def main(
    model: str,
    weights: str,
    names_file: Path,
    out: Path,
    architecture: str,
    templates: tuple[str, ...],
) -> None:
    """Write the vocabulary OUT: the mean embedding of all templates for each name."""
    import open_clip

    clip = open_clip.create_model(model, pretrained=weights).eval()
    tokenizer = open_clip.get_tokenizer(model)
    names = tuple(line.strip() for line in names_file.read_text().splitlines() if line.strip())
    rows = []
    for name in names:
        texts = tokenizer([template.replace("{}", name) for template in templates])
        rows.append(clip.encode_text(texts, normalize=True).mean(dim=0).float().numpy())
    metadata = VocabularyMetadata(
        text_tower=f"open_clip/{model}",
        image_architecture=architecture,
        templates=templates,
        names=names,
    )
    write_vocabulary(out, np.stack(rows), metadata, scale=float(clip.logit_scale.exp()))


if __name__ == "__main__":
    main()
