"""The optimiser of a training: SGD or AdamW, and its state as named tensors for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from distinit.pipeline.students.heads import Student
from distinit.schemas.training import OptimizerConfig

__all__ = ["check_state", "load_state", "new_optimizer", "state_like", "state_tensors"]

_SGD, _ADAMW = ("momentum_buffer",), ("exp_avg", "exp_avg_sq", "step")
_MAX_STEP = 2**24  # fp32 cannot count further; torch stops there too


def new_optimizer(student: Student, config: OptimizerConfig) -> torch.optim.Optimizer:
    """An optimiser over the trainable parameters; the learning rate is set at every step.

    Which parameters have weight decay is decided by ``decay_biases`` and ``decay_norms``.
    """
    trainable = [(name, p) for name, p in student.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trainable if _is_decayed(name, p, config)]
    others = [p for name, p in trainable if not _is_decayed(name, p, config)]
    # One kernel for all parameters; on a CPU the other implementation rounds as it always did.
    fused = True if any(p.is_cuda for _, p in trainable) else None
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    if config.name == "adamw":
        return torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=fused,
        )
    return torch.optim.SGD(
        groups,
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        weight_decay=config.weight_decay,
        fused=fused,
    )


def _is_decayed(name: str, parameter: nn.Parameter, config: OptimizerConfig) -> bool:
    kind = name.rpartition(".")[2]
    if kind == "bias":
        return config.decay_biases
    is_scale = kind == "weight" and parameter.ndim == 1
    return config.decay_norms or not (is_scale or kind == "relative_position_bias_table")


def state_tensors(student: Student, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state as tensors named ``<state>.<parameter>``, such as ``momentum_buffer.fc.weight``."""
    found = {}
    for name, parameter in student.named_parameters():
        for state, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                found[f"{state}.{name}"] = value
    return found


def state_like(student: Student, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Tensors with the names, types and shapes of ``state_tensors`` after the first step."""
    states = {
        id(parameter): _states_of(optimizer, group)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return {
        f"{state}.{name}": torch.zeros(()) if state == "step" else parameter
        for name, parameter in student.named_parameters()
        for state in states.get(id(parameter), ())
    }


def _states_of(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(optimizer, torch.optim.AdamW):
        return _ADAMW
    return _SGD if group["momentum"] else ()


def check_state(tensors: Mapping[str, Tensor], global_step: int) -> None:
    """Raise ValueError for values that no training of ``global_step`` steps can have left.

    AdamW divides by the root of ``exp_avg_sq`` and by a number computed from ``step``. Names,
    types and shapes must have been checked.
    """
    for name, tensor in tensors.items():
        state = name.partition(".")[0]
        if state == "step" and tensor.item() != min(global_step, _MAX_STEP):
            raise ValueError(f"{name} is {tensor.item():g}, in a checkpoint of step {global_step}")
        if state == "exp_avg_sq" and bool((tensor < 0).any()):
            raise ValueError(f"{name} holds negative values")


def load_state(
    student: Student, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Set the state from tensors with the names, types and shapes of ``state_like``."""
    named = dict(student.named_parameters())
    for full_name, tensor in tensors.items():
        state, _, name = full_name.partition(".")
        parameter = named[name]
        if state == "step":  # fp32; on the device only if the optimiser is fused
            is_fused = bool(optimizer.defaults.get("fused"))
            optimizer.state[parameter][state] = tensor.to(parameter.device if is_fused else "cpu")
        else:  # in the memory format of the parameter, which is the fastest
            optimizer.state[parameter][state] = torch.empty_like(parameter.detach()).copy_(tensor)
