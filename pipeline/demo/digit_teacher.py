"""The teacher of the moving digits: a small image network, trained on labelled stills of digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from distinit.pipeline.demo.digits import FRAME_SIDE, pool, stills
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.tensors import write_tensors
from distinit.schemas.teacher import PreprocessSpec

__all__ = ["TEACHER_EPOCHS", "DigitNet", "digit_teacher", "held_out_accuracy", "train_teacher"]

_WIDTHS = (16, 32, 64)
_PER_SCAN = 8  # stills per scan and epoch
TEACHER_EPOCHS = 5
_BATCH, _LEARNING_RATE = 64, 4e-3
_MEAN = _STD = (0.5, 0.5, 0.5)


class DigitNet(nn.Module):
    """Three stages of two convolutions, then global max pooling: [N, 3, 64, 64] -> [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.AvgPool2d(2)]
        planes = 3
        for width in _WIDTHS:
            layers += _conv(planes, width, stride=1 if planes == 3 else 2) + _conv(width, width)
            planes = width
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(_WIDTHS[-1], 10)

    def forward(self, frames_NCHW: Tensor) -> Tensor:
        features: Tensor = self.layers(frames_NCHW).amax(dim=(2, 3))
        logits: Tensor = self.classifier(features)
        return logits


def _conv(planes_in: int, planes_out: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(planes_in, planes_out, 3, stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(planes_out), nn.ReLU(inplace=True)]


def train_teacher(
    path: Path,
    *,
    epochs: int = TEACHER_EPOCHS,
    per_scan: int = _PER_SCAN,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Train on ``per_scan`` new stills of each of the teacher's scans per epoch.

    The weights are written to ``path`` at the end. Raises DistInitError if a package with digits or
    photographs is missing, and StorageError.
    """
    progress = progress or NullProgress()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = DigitNet()
    optimizer = torch.optim.AdamW(net.parameters(), lr=_LEARNING_RATE, weight_decay=0.01)
    steps = -(-len(pool("teacher")) * per_scan // _BATCH) * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    progress.start("train the teacher", steps, "steps")
    for epoch in range(epochs):
        frames_NCHW, label_N = _batch_of(list(stills("teacher", per_scan, seed + 100 + epoch)))
        order = torch.randperm(len(label_N), generator=torch.Generator().manual_seed(epoch))
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            loss = functional.cross_entropy(net(frames_NCHW[chosen]), label_N[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            progress.advance()
    progress.finish()
    write_tensors(net.state_dict(), path)


def held_out_accuracy(path: Path) -> float:
    """Accuracy of the teacher in percent, on stills of scans that are in no other pool."""
    net, *_ = digit_teacher(str(path), "cpu")
    frames_NCHW, label_N = _batch_of(list(stills("held_out", 4, seed=1)))
    with torch.inference_mode():
        found_N = net.eval()(frames_NCHW).argmax(dim=1)
    return 100 * float((found_N == label_N).float().mean())


def digit_teacher(
    weights: str | None, device: str
) -> tuple[nn.Module, PreprocessSpec, Sequence[str], str]:
    """The plugin: ``--teacher plugin:distinit.pipeline.demo.digit_teacher:digit_teacher``."""
    net = DigitNet()
    if weights is not None:
        net.load_state_dict(load_file(weights))
    spec = PreprocessSpec(
        resize_mode="squash",
        resize_size=FRAME_SIDE,
        crop_size=FRAME_SIDE,
        mean=_MEAN,
        std=_STD,
    )
    return net, spec, [str(digit) for digit in range(10)], "digits"


def _batch_of(pairs: Sequence[tuple[np.ndarray, int]]) -> tuple[Tensor, Tensor]:
    """(float32 [N, 3, H, W], as preprocessing gives them; labels [N])."""
    frames_NHWC = np.stack([frame for frame, _ in pairs])
    frames_NCHW = torch.from_numpy(frames_NHWC).permute(0, 3, 1, 2).float().div_(255)
    return frames_NCHW.sub_(0.5).div_(0.5), torch.tensor([label for _, label in pairs])
