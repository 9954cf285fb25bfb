"""How much outputs for the probe picture differ, between machines and after edits of the code.

    python benchmarks/probe_study.py

Prints, for each network, deviations as computed by ``ProbeOutput.deviation``: the largest
difference of a signed sum, as a share of the spread of the output.
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
from distinit.pipeline.teachers.probe import probe_frame, probe_record
from distinit.pipeline.teachers.registry import load_network
from distinit.pipeline.video.views import View
from distinit.schemas.probe_output import ProbeOutput
from distinit.schemas.teacher import PreprocessSpec, TeacherRequest

SPEC = PreprocessSpec(
    resize_mode="short_edge",
    resize_size=256,
    crop_size=224,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
Edit = Callable[[nn.Module], object]


def networks() -> dict[str, tuple[nn.Module, PreprocessSpec]]:
    """Return one network with trained weights and three with seeded random weights."""
    torch.manual_seed(0)
    lite = load_network(TeacherRequest(name="efficientnet_lite0"))
    return {
        "efficientnet_lite0 (trained)": (lite.module, lite.identity.preprocessing),
        "resnet18 (seeded)": (models.resnet18(), SPEC),
        "mobilenet_v3_large (seeded)": (models.mobilenet_v3_large(), SPEC),
        "vit_b_32 (seeded)": (_with_a_head(models.vit_b_32()), SPEC),
    }


def _with_a_head(network: models.VisionTransformer) -> nn.Module:
    nn.init.normal_(network.heads[-1].weight, std=0.02)  # torchvision initialises it to zeros
    return network


def probe_output(
    network: nn.Module,
    spec: PreprocessSpec,
    *,
    batch: int = 1,
    dtype: torch.dtype | None = None,
    channels_last: bool = True,
    off_by_one_in: int = 0,
) -> ProbeOutput:
    """Return the output of ``network`` for the probe picture, the first of ``batch`` frames.

    With ``off_by_one_in=N``, one in N values of the resized picture is changed by one level (of
    256), as if another kernel had rounded differently.
    """
    frame = probe_frame(View.source())
    frames_NHWC = torch.from_numpy(np.stack([np.roll(frame, 7 * i, 1) for i in range(batch)]))
    input_NCHW = preprocess(frames_NHWC, spec)
    if off_by_one_in:
        std = torch.tensor(spec.std)[:, None, None] * 255
        off = (
            torch.rand(input_NCHW.shape, generator=torch.Generator().manual_seed(1))
            < 1 / off_by_one_in
        )
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
    return probe_record(row_C, "study")


def unchanged(network: nn.Module, spec: PreprocessSpec) -> dict[str, ProbeOutput]:
    """Outputs of the same teacher with other arithmetic, as on other machines."""
    outputs = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        outputs[f"{threads} threads"] = probe_output(network, spec)
    outputs["in a batch of 8"] = probe_output(network, spec, batch=8)
    outputs["contiguous, not channels last"] = probe_output(network, spec, channels_last=False)
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        outputs["without oneDNN"] = probe_output(network, spec)
    for one_in in (100_000, 10_000, 1_000):
        outputs[f"1 in {one_in:,} values changed by 1 level"] = probe_output(
            network, spec, off_by_one_in=one_in
        )
    outputs["float64"] = probe_output(network, spec, dtype=torch.float64)
    outputs["bf16 autocast (not compared)"] = probe_output(network, spec, dtype=torch.bfloat16)
    return outputs


def edited(network: nn.Module, spec: PreprocessSpec) -> dict[str, ProbeOutput]:
    """Outputs after edits that change the teacher but not its weights."""
    specs = {
        "mean 1 % higher": {"mean": tuple(1.01 * m for m in spec.mean)},
        "channels swapped": {"channel_order": "bgr"},
        "mirrored": {"flip": True},
        "resized without antialias": {"antialias": False},
        "bicubic": {"interpolation": "bicubic"},
        "resized to one pixel more": {"resize_size": spec.resize_size + 1},
    }
    outputs = {n: probe_output(network, spec.model_copy(update=u)) for n, u in specs.items()}
    for name, edit in MODULE_EDITS.items():
        other = copy.deepcopy(network)
        if edit(other):
            outputs[name] = probe_output(other, spec)
    return outputs


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
    """Return the share of values of the resized picture that float64 rounds differently."""
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
        expected = probe_output(network, spec)
        print(f"\n{title}: spread {expected.spread:.3g}, {expected}")
        for kind, outputs in (
            ("same", unchanged(network, spec)),
            ("edited", edited(network, spec)),
        ):
            for name, found in outputs.items():
                print(f"  {kind:7} {name:32} {expected.deviation(found):9.2e}")


if __name__ == "__main__":
    main()
