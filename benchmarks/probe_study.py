"""How far answers to the probe picture differ: between machines, and after edits of the code.

    python benchmarks/probe_study.py

Prints, for each network, deviations as ``ProbeAnswer.deviation`` counts them: the largest
difference of a signed sum, as a share of the spread of the answer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torchvision import models
from torchvision.transforms import functional as transforms

from distinit.pipeline.teachers.preprocess import preprocess
from distinit.pipeline.teachers.probe import answer_record, probe_frame
from distinit.pipeline.teachers.registry import load_network
from distinit.pipeline.video.views import View
from distinit.schemas.teacher import PreprocessSpec, ProbeAnswer, TeacherRequest

SPEC = PreprocessSpec(
    resize_mode="short_edge",
    resize_size=256,
    crop_size=224,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
Edit = Callable[[nn.Module], object]


def networks() -> dict[str, tuple[nn.Module, PreprocessSpec]]:
    """One with trained weights, three with seeded ones."""
    torch.manual_seed(0)
    lite = load_network(TeacherRequest(name="efficientnet_lite0"))
    return {
        "efficientnet_lite0 (trained)": (lite.module, lite.identity.preprocessing),
        "resnet18 (seeded)": (models.resnet18(), SPEC),
        "mobilenet_v3_large (seeded)": (models.mobilenet_v3_large(), SPEC),
        "vit_b_32 (seeded)": (_with_a_head(models.vit_b_32()), SPEC),
    }


def _with_a_head(network: models.VisionTransformer) -> nn.Module:
    nn.init.normal_(network.heads[-1].weight, std=0.02)  # torchvision begins with zeros
    return network


def answer(
    network: nn.Module,
    spec: PreprocessSpec,
    *,
    batch: int = 1,
    dtype: torch.dtype | None = None,
    channels_last: bool = True,
    turned: int = 0,
) -> ProbeAnswer:
    """What ``network`` says of the probe picture, the first of ``batch`` frames.

    ``turned``: every so many-th value of the resized picture is one level (of 256) off, as where
    another kernel rounds the other way.
    """
    frame = probe_frame(View.source())
    frames_NHWC = torch.from_numpy(np.stack([np.roll(frame, 7 * i, 1) for i in range(batch)]))
    input_NCHW = preprocess(frames_NHWC, spec)
    if turned:
        std = torch.tensor(spec.std)[:, None, None] * 255
        off = torch.rand(input_NCHW.shape, generator=torch.Generator().manual_seed(1)) < 1 / turned
        input_NCHW = input_NCHW + off / std
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.eval().to(memory_format=layout)
    input_NCHW = input_NCHW.contiguous(memory_format=layout)
    if dtype == torch.float64:
        network, input_NCHW = copy.deepcopy(network).double(), input_NCHW.double()
    half = dtype if dtype in (torch.bfloat16, torch.float16) else None
    autocast = torch.autocast("cpu", dtype=half, enabled=half is not None)
    with torch.inference_mode(), autocast:
        row_C = network(input_NCHW)[0].float().numpy()
    return answer_record(row_C, "study")


def honest(network: nn.Module, spec: PreprocessSpec) -> dict[str, ProbeAnswer]:
    """The same teacher on other machines, or with other settings of the arithmetic."""
    answers = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        answers[f"{threads} threads"] = answer(network, spec)
    answers["in a batch of 8"] = answer(network, spec, batch=8)
    answers["contiguous, not channels last"] = answer(network, spec, channels_last=False)
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        answers["without oneDNN"] = answer(network, spec)
    for turned in (100_000, 10_000, 1_000):
        answers[f"1 in {turned:,} values 1 level off"] = answer(network, spec, turned=turned)
    answers["float64"] = answer(network, spec, dtype=torch.float64)
    answers["bf16 autocast (not compared)"] = answer(network, spec, dtype=torch.bfloat16)
    return answers


def edited(network: nn.Module, spec: PreprocessSpec) -> dict[str, ProbeAnswer]:
    """Another teacher with the same weights: settings that code may hold and not tell."""
    specs = {
        "mean 0.5 higher by 1 %": {"mean": tuple(1.01 * m for m in spec.mean)},
        "channels swapped": {"channel_order": "bgr"},
        "mirrored": {"flip": True},
        "resized without antialias": {"antialias": False},
        "bicubic": {"interpolation": "bicubic"},
        "resized to one pixel more": {"resize_size": spec.resize_size + 1},
    }
    answers = {n: answer(network, spec.model_copy(update=u)) for n, u in specs.items()}
    for name, edit in MODULE_EDITS.items():
        other = copy.deepcopy(network)
        if edit(other):
            answers[name] = answer(other, spec)
    return answers


def _replace(kind: type[nn.Module], make: Callable[[], nn.Module]) -> Edit:
    def edit(network: nn.Module) -> bool:
        names = [name for name, module in network.named_modules() if type(module) is kind]
        for name in names:
            network.set_submodule(name, make())
        return bool(names)

    return edit


def _batch_norm_eps(network: nn.Module) -> bool:
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.eps *= 10
    return bool(norms)


MODULE_EDITS: dict[str, Edit] = {
    "average to max pooling": _replace(nn.AdaptiveAvgPool2d, lambda: nn.AdaptiveMaxPool2d(1)),
    "GELU by tanh": _replace(nn.GELU, lambda: nn.GELU(approximate="tanh")),
    "ReLU to SiLU": _replace(nn.ReLU, nn.SiLU),
    "eps of batch norms x 10": _batch_norm_eps,
}


def rounding_of_the_resize() -> float:
    """Share of the values of the resized probe picture that round otherwise from float64."""
    picture = torch.from_numpy(probe_frame(View.source())).permute(2, 0, 1)[None]
    rounded = [
        transforms.resize(picture.to(dtype), [SPEC.resize_size], antialias=True).round()
        for dtype in (torch.float32, torch.float64)
    ]
    return float((rounded[0] != rounded[1]).float().mean())


def main() -> None:
    """Print the table."""
    print(f"resize in float32 and float64: {rounding_of_the_resize():.2e} of the values differ")
    for title, (network, spec) in networks().items():
        network.requires_grad_(False)
        wanted = answer(network, spec)
        print(f"\n{title}: spread {wanted.spread:.3g}, {wanted}")
        for kind, answers in (("same", honest(network, spec)), ("edited", edited(network, spec))):
            for name, found in answers.items():
                print(f"  {kind:7} {name:32} {wanted.deviation(found):9.2e}")


if __name__ == "__main__":
    main()
