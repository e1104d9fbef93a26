"""Parameter groups and the learning rate, which is a pure function of the step: there is no scheduler to resume."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.groups import OptimizerOptions, ScheduleKind

Rule = Callable[[str, nn.Parameter], float]
"""(name, parameter) -> a factor."""


def group_parameters(
    named_parameters: Iterable[tuple[str, nn.Parameter]], *, learning_rate: float, rate: Rule, decay: Rule
) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning rate and weight decay, in the order of their first parameters.

    Args:
        named_parameters: as `model.named_parameters()` gives them.
        learning_rate: the full one.
        rate: the factor on it for a parameter.
        decay: the weight decay of a parameter.

    Returns:
        Groups for a torch optimizer: {"params", "names", "lr", "base_rate", "weight_decay"}.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        factor, weight_decay = rate(name, parameter), decay(name, parameter)
        full = learning_rate * factor
        empty = {"params": [], "names": [], "lr": full, "base_rate": full, "weight_decay": weight_decay}
        group = groups.setdefault((factor, weight_decay), empty)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    learning_rate: float,
    weight_decay: float,
    no_decay: Sequence[str] = (),
    rate_scale: Sequence[tuple[str, float]] = (),
) -> list[dict[str, Any]]:
    """The same by rules on the names: regular expressions searched anywhere in a name, every match applied in order.

    Args:
        named_parameters: as `model.named_parameters()` gives them.
        learning_rate: of a parameter without rule.
        weight_decay: of a parameter without rule.
        no_decay: patterns of the names that get no weight decay.
        rate_scale: (pattern, factor): the learning rate of matching names is multiplied by the factor.
    """
    return group_parameters(
        named_parameters,
        learning_rate=learning_rate,
        rate=lambda name, _: math.prod(factor for pattern, factor in rate_scale if re.search(pattern, name)),
        decay=lambda name, _: 0.0 if any(re.search(pattern, name) for pattern in no_decay) else weight_decay,
    )


def build(options: OptimizerOptions, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    """An optimizer over parameter groups; its kernels are fused where the library has them so.

    Args:
        options: which, and its constants. "adamw" and "sgd" are torch's; "lamb" (You et al. 2020; a gradient of norm
            above 1 is scaled down to 1) and "lars" (You et al. 2017; groups without weight decay are not adapted) are
            timm's.
        groups: as parameter_groups makes them.
        learning_rate: of groups without one.
    """
    small: dict[str, Any] = {} if options.eps is None else {"eps": options.eps}
    if options.name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=options.betas, fused=True, **small)
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=options.momentum, fused=True)
    from timm.optim.lamb import Lamb  # importing timm takes seconds
    from timm.optim.lars import Lars

    if options.name == "lamb":
        return Lamb(groups, lr=learning_rate, betas=options.betas, **small)
    return Lars(groups, lr=learning_rate, momentum=options.momentum)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate of each step, and the weight decay where that moves too.

    kind:
        "cosine": half a cosine from the base rate to min_rate over the steps after the warm-up, which is linear from
            warmup_start times the base rate (Loshchilov and Hutter 2017; timm, RSB, DeiT).
        "warmup_times_cosine": A2MIM's released "StepFixCosine": the warm-up factor t/W multiplies a cosine whose phase
            (t-W)/(T-W) is negative, hence mirrored, during the warm-up.
        "step": times step_factor at every step of `milestones`.
        "poly": (1 - t/T)^power from the base rate to min_rate (DeepLab, MMSegmentation).
        "constant".
    min_rate is absolute: it is not scaled with a group's own rate.
    final_weight_decay: where the weight decay of the groups that have one ends, by half a cosine over the whole run
        (DINO, I-JEPA); None: it stays.
    """

    kind: ScheduleKind
    total_steps: int
    warmup_steps: int = 0
    warmup_start: float = 0.0
    min_rate: float = 0.0
    milestones: tuple[int, ...] = ()
    step_factor: float = 0.1
    power: float = 1.0
    final_weight_decay: float | None = None

    def rate(self, step: int, base: float) -> float:
        """Learning rate during 0-based `step` of a group whose full rate is `base`."""
        if self.kind == "warmup_times_cosine":
            cosine = self._cosine(step, base)
            return cosine * step / self.warmup_steps if step < self.warmup_steps else cosine
        if step < self.warmup_steps:
            return base * (self.warmup_start + (1 - self.warmup_start) * step / self.warmup_steps)
        if self.kind == "cosine":
            return self._cosine(step, base)
        if self.kind == "poly":
            left = 1 - (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1)
            return self.min_rate + (base - self.min_rate) * math.pow(max(left, 0.0), self.power)
        if self.kind == "step":
            return float(base * self.step_factor ** sum(step >= milestone for milestone in self.milestones))
        return base

    def _cosine(self, step: int, base: float) -> float:
        phase = (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1)
        return self.min_rate + 0.5 * (base - self.min_rate) * (1 + math.cos(math.pi * min(phase, 1.0)))

    def decay(self, step: int, first: float, last: float) -> float:
        """Weight decay during 0-based `step`: half a cosine from `first` to `last`."""
        return last + 0.5 * (first - last) * (1 + math.cos(math.pi * min(step / max(self.total_steps, 1), 1.0)))

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Set every group's rate for `step` from its "base_rate", and its decay; returns the first group's rate."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step, group["base_rate"])
            if self.final_weight_decay is not None:
                base = group.setdefault("base_decay", group["weight_decay"])
                group["weight_decay"] = self.decay(step, base, self.final_weight_decay) if base else 0.0
        return float(optimizer.param_groups[0]["lr"])


def norms_by_group(optimizer: torch.optim.Optimizer) -> list[dict[str, float]]:
    """Rate, decay, weight norm and gradient norm of every group (for the diagnosis of a diverged run)."""
    rows = []
    for group in optimizer.param_groups:
        gradients = [p.grad for p in group["params"] if p.grad is not None]
        rows.append(
            {
                "lr": float(group["lr"]),
                "weight_decay": float(group.get("weight_decay", 0.0)),
                "num_tensors": float(len(group["params"])),
                "weight_norm": float(torch.nn.utils.get_total_norm(group["params"])),
                "gradient_norm": float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0,
            }
        )
    return rows
