"""Is what the device computes right: losses and gradients against float64 on the CPU, precisions, memory formats, and
batch norm over ranks."""

import copy
import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from benchmarks.speed.gpu.part import Part
from benchmarks.speed.step import StepSettings, make_batch, published_config
from engine.training.ranks import prepare_for_ranks
from engine.training.state import set_backends
from pretrain.build import build_model

BATCH_SIZE = 4
IMAGE_SIZE = 96  # the reference is computed in float64 on the CPU


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a loss is computed."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    precision: str = "float32"
    channels_last: bool = False


def run(part: Part) -> None:
    """Batch norm over two ranks, then every method on every network."""
    if part.small:
        part.record.add("batch norm over ranks", note="needs a GPU")
    else:
        with part.record.attempt("batch norm over ranks"):
            _ranks(part)
    for model in part.models:
        for method in ("a2mim", "simmim"):
            with part.record.attempt(f"{method} {model}"):
                _compare(part, model, method)


def _compare(part: Part, model: str, method: Any) -> None:
    cpu, name = torch.device("cpu"), f"{method} {model}"
    settings = StepSettings(
        device=cpu, batch_size=BATCH_SIZE, image_size=min(part.image_size, IMAGE_SIZE), precision="float32", pairs=1
    )
    config = replace(published_config(model, method, settings), drop_path=0.0)
    torch.manual_seed(0)
    net: Any = build_model(config).train()
    made = make_batch(config, settings)
    batch = made["image"], made["mask"]
    exact, exact_norm = _loss(net, batch, Way(device=cpu, dtype=torch.float64))
    same, same_norm = _loss(net, batch, Way(device=part.device, dtype=torch.float64))
    part.record.at_most(f"{name}: loss in float64, difference from the CPU", _apart(same, exact), 1e-6)
    part.record.at_most(f"{name}: gradient in float64, difference from the CPU", _apart(same_norm, exact_norm), 1e-5)
    single, single_norm = _loss(net, batch, Way(device=part.device))
    part.record.at_most(f"{name}: loss in float32, difference from float64", _apart(single, exact), 1e-4)
    part.record.at_most(f"{name}: gradient in float32, difference from float64", _apart(single_norm, exact_norm), 1e-2)
    rough, _ = _loss(net, batch, Way(device=part.device, precision="tf32"))
    part.record.at_most(f"{name}: loss in tf32, difference from float64", _apart(rough, exact), 1e-2)
    half, _ = _loss(net, batch, Way(device=part.device, precision="bfloat16", channels_last=net.encoder.is_cnn))
    part.record.at_most(f"{name}: loss in bfloat16, difference from float64", _apart(half, exact), 3e-2)
    if net.encoder.is_cnn:
        last, _ = _loss(net, batch, Way(device=part.device, channels_last=True))
        part.record.at_most(f"{name}: loss in channels_last, difference from planar", _apart(last, single), 1e-4)


def _loss(net: Any, batch: tuple[Tensor, Tensor], way: Way) -> tuple[float, float]:
    """Total loss and gradient norm of a copy of the network, in training mode."""
    net = copy.deepcopy(net).to(way.device, way.dtype)
    if way.channels_last:
        net = net.to(memory_format=torch.channels_last)
    set_backends(way.precision, way.device)
    autocast = torch.autocast(way.device.type, dtype=torch.bfloat16)
    with autocast if way.precision == "bfloat16" else nullcontext():
        terms = net(*(tensor.to(way.device) for tensor in batch))
    total = torch.stack([term if way.dtype == torch.float64 else term.float() for term in terms.values()]).sum()
    total.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])
    return float(total), float(norm)


def _apart(value: float, reference: float) -> float:
    return abs(value - reference) / abs(reference) if math.isfinite(value) else math.nan


def _ranks(part: Part) -> None:
    """Two processes on the one GPU, joined by gloo since NCCL refuses a shared one; NCCL with a group of one."""
    found = part.folder / "ranks.pt"
    spawn(_rank, args=(str(part.folder / "meeting"), str(found)), nprocs=2)  # type: ignore[no-untyped-call]
    ours = torch.load(found, weights_only=True)
    net, images = _norm_network().cuda(), _images()
    net(images.cuda()).square().mean().backward()
    whole = [p.grad for p in net.parameters() if p.grad is not None]
    worst = max(float((a - b.cpu()).abs().max() / b.abs().max()) for a, b in zip(ours, whole, strict=True))
    part.record.at_most("two ranks, synchronised batch norm: gradient, difference from one", worst, 1e-4)
    dist.init_process_group("cpu:gloo,cuda:nccl", init_method=f"file://{part.folder}/alone", rank=0, world_size=1)
    for device in (part.device, torch.device("cpu")):
        one = torch.ones(1, device=device)
        dist.all_reduce(one)
        part.record.equal(f"NCCL and gloo: a sum over a group of one, {device.type}", float(one), 1.0)
    dist.destroy_process_group()


def _rank(rank: int, meeting: str, found: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    device = torch.device("cuda", 0)
    torch.cuda.set_device(device)
    set_backends("float32", device)
    net = prepare_for_ranks(_norm_network(), device).to(device)
    forward = nn.parallel.DistributedDataParallel(net, device_ids=[0])
    forward(_images().chunk(2)[rank].to(device)).square().mean().backward()
    if rank == 0:
        torch.save([p.grad.cpu() for p in net.parameters() if p.grad is not None], Path(found))
    dist.destroy_process_group()


def _norm_network() -> nn.Module:
    """Without biases before a batch norm: their gradient is zero, and what is computed of it is rounding alone."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False)
    return nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.BatchNorm2d(8), nn.Tanh())


def _images() -> Tensor:
    return (
        torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + torch.arange(8.0)[:, None, None, None]
    )
