"""Learning rates as pure functions of the step, and parameter groups by name."""

import math

import pytest
import torch
from torch import nn

from engine.groups import OptimizerOptions
from engine.training.optim import Schedule, build, norms_by_group, parameter_groups


def test_cosine_warms_up_linearly_and_ends_at_the_smallest_rate():
    schedule = Schedule(kind="cosine", total_steps=110, warmup_steps=10, warmup_start=0.1, min_rate=1e-3)
    assert schedule.rate(0, 1.0) == pytest.approx(0.1)
    assert schedule.rate(5, 1.0) == pytest.approx(0.55)
    assert schedule.rate(10, 1.0) == pytest.approx(1.0)
    assert schedule.rate(60, 1.0) == pytest.approx(0.5 * (1 + 1e-3))
    assert schedule.rate(110, 1.0) == pytest.approx(1e-3)


def test_the_released_cnn_schedule_multiplies_the_warm_up_with_a_mirrored_cosine():
    total, warmup, low, base = 100, 10, 1e-5, 1.2e-3
    schedule = Schedule(kind="warmup_times_cosine", total_steps=total, warmup_steps=warmup, min_rate=low)
    for step in (0, 1, 7, 10, 11, 55, 99):
        phase = (step - warmup) / (total - warmup)
        cosine = low + 0.5 * (base - low) * (1 + math.cos(math.pi * phase))
        expected = cosine * min(step / warmup, 1.0)
        assert schedule.rate(step, base) == pytest.approx(expected, rel=1e-12)


def test_the_smallest_rate_is_absolute_for_every_group():
    schedule = Schedule(kind="cosine", total_steps=10, min_rate=1e-5)
    assert schedule.rate(10, 1.2e-3) == schedule.rate(10, 1.2e-4) == pytest.approx(1e-5)


def test_step_and_poly():
    step = Schedule(kind="step", total_steps=800, warmup_steps=10, milestones=(700,), step_factor=0.1)
    assert [step.rate(s, 4e-4) for s in (10, 699, 700, 799)] == pytest.approx([4e-4, 4e-4, 4e-5, 4e-5])
    poly = Schedule(kind="poly", total_steps=100, power=0.9, min_rate=1e-4)
    assert poly.rate(25, 0.01) == pytest.approx((0.01 - 1e-4) * 0.75**0.9 + 1e-4)


def test_cosine_equals_torch():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.01)
    ours = Schedule(kind="cosine", total_steps=50, min_rate=0.01)
    for step in range(50):
        assert ours.rate(step, 0.3) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        theirs.step()


def test_names_decide_decay_and_rate_and_every_match_counts():
    model = nn.ModuleDict({"bn1": nn.BatchNorm2d(3), "conv": nn.Conv2d(3, 3, 1), "frozen": nn.Linear(2, 2)})
    model["frozen"].requires_grad_(False)
    groups = parameter_groups(
        model.named_parameters(),
        learning_rate=1.0,
        weight_decay=0.05,
        no_decay=[r"(bn|ln|gn)(\d+)?.(weight|bias)", "bias"],
        rate_scale=[("conv", 0.1), ("bias", 0.5)],
    )
    found = {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["names"]}
    assert found == {
        "bn1.weight": (1.0, 0.0),
        "bn1.bias": (0.5, 0.0),
        "conv.weight": (0.1, 0.05),
        "conv.bias": (pytest.approx(0.05), 0.0),
    }
    assert sum(len(group["params"]) for group in groups) == 4


def test_norms_are_those_of_the_tensors():
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    weight.grad = torch.tensor([0.0, 2.0])
    rows = norms_by_group(torch.optim.SGD([{"params": [weight], "lr": 0.1, "weight_decay": 0.5}]))
    assert (rows[0]["weight_norm"], rows[0]["gradient_norm"]) == (5.0, 2.0)


@pytest.mark.parametrize("name", ["adamw", "lamb", "lars", "sgd"])
def test_every_optimizer_takes_the_groups_and_moves_towards_the_minimum(name):
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    groups = parameter_groups(net.named_parameters(), learning_rate=0.05, weight_decay=1e-4, no_decay=("bias",))
    optimizer = build(OptimizerOptions(name=name), groups, 0.05)
    assert [group["base_rate"] for group in optimizer.param_groups] == [0.05, 0.05]
    x = torch.randn(64, 4)
    y = x.sum(1, keepdim=True) + 1
    losses = []
    for _ in range(30):
        loss = (net(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_the_weight_decay_goes_by_half_a_cosine_and_groups_without_one_keep_none():
    net = nn.Linear(2, 2)
    groups = parameter_groups(net.named_parameters(), learning_rate=0.1, weight_decay=0.04, no_decay=("bias",))
    optimizer = build(OptimizerOptions(), groups, 0.1)
    schedule = Schedule(kind="constant", total_steps=100, final_weight_decay=0.4)
    seen = []
    for step in (0, 50, 25, 100):  # a function of the step, whatever came before
        schedule.apply(optimizer, step)
        seen.append([group["weight_decay"] for group in optimizer.param_groups])
    assert [pair[1] for pair in seen] == [0.0] * 4
    assert [pair[0] for pair in seen] == pytest.approx([0.04, 0.22, 0.4 - 0.36 * (1 + math.cos(math.pi / 4)) / 2, 0.4])
