"""What a pre-training step costs: the methods against a plain mean loss, and precisions, layouts and compilation.

Shapes: B batch, S image size, g mask cells along a side.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed.isolated import isolated
from benchmarks.speed.timing import Comparison, Contender, compare, timing
from engine.errors import DivergedError
from engine.training.state import PRECISIONS, Meters, seed_step, set_backends
from engine.training.verdict import Verdict
from pretrain.build import build_model
from pretrain.config import PretrainConfig
from pretrain.masking import cell_mask
from pretrain.methods import METHODS, a2mim
from pretrain.recipes import for_model
from pretrain.targets import Normalise
from pretrain.train import build_optimizer

LEARNING_RATE = 1e-6  # the weights must move, and not far: the steps compared should meet the same numbers


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """How steps are taken.

    Args:
        device: where.
        batch_size: images in a step.
        image_size: side of the images in pixels.
        precision: of engine.training.state.PRECISIONS.
        pairs: timings of each contender.
    """

    device: torch.device
    batch_size: int
    image_size: int
    precision: str
    pairs: int


class PlainMean(nn.Module):
    """The same encoder and decoder, weights shared, with the mean absolute error of all pixels as the loss.

    Nothing is masked or filled: this is what any reconstruction costs.
    """

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.normalise, self.encoder, self.decoder = method.normalise, method.encoder, method.decoder

    def forward(self, images_bchw: Tensor, mask_bgg: Tensor) -> dict[str, Tensor]:
        """{"mean": scalar} for uint8 images (B, 3, S, S); the mask is not used."""
        x = self.normalise(images_bchw)
        return {"mean": (self.decoder(self.encoder(x)) - x).abs().mean()}


class FixedLayout(Normalise):
    """Normalise with a memory format that does not depend on the device."""

    def __init__(self, memory_format: torch.memory_format) -> None:
        super().__init__(channels_last=memory_format == torch.channels_last)
        self.fixed_format = memory_format

    def memory_format(self, device: torch.device) -> torch.memory_format:
        """The fixed one."""
        return self.fixed_format


def published_config(model: str, method: str, settings: StepSettings) -> PretrainConfig:
    """The published rules of the model, at the benchmark's batch and image size."""
    config = for_model(model, method)
    return replace(
        config,
        batch_size=settings.batch_size,
        image_size=settings.image_size,
        optimizer=replace(config.optimizer, base_learning_rate=LEARNING_RATE, base_batch=settings.batch_size),
    )


class Steps:
    """Training steps of a model on one batch that stays on the device: forward to AdamW, as in a run.

    Args:
        config: the optimizer's rules are taken from it.
        model: (uint8 images, mask) -> named losses; on the device already.
        optimizer: over its parameters.
        settings: batch, device, precision.
    """

    def __init__(
        self, config: PretrainConfig, model: nn.Module, optimizer: torch.optim.Optimizer, settings: StepSettings
    ) -> None:
        self.config, self.model, self.optimizer, self.settings = config, model, optimizer, settings
        self.meters, self.taken = Meters(), 0
        rng = np.random.default_rng(0)
        size, mask = settings.image_size, config.mask
        shape = (settings.batch_size, size, size, 3)  # as the loader's batches lie in memory
        images = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8)).permute(0, 3, 1, 2)
        masks = [cell_mask(rng, size, mask.cell_size, mask.mask_ratio) for _ in range(settings.batch_size)]
        self.images_bchw = images.to(settings.device)
        self.mask_bgg = torch.from_numpy(np.stack(masks)).to(settings.device)

    def step(self) -> None:
        """One step with all that engine/loop.py does in one: seeding, meters, verdict, clipping."""
        set_backends(self.settings.precision, self.settings.device)
        seed_step(0, self.taken)
        with self.autocast():
            losses = self.model(self.images_bchw, self.mask_bgg)
        total = torch.stack([value.float() for value in losses.values()]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        self.meters.add(losses, 1.0)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters], foreach=True)
        if self.config.optimizer.clip_grad is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.config.optimizer.clip_grad, norm, foreach=True)
        verdict = Verdict(~torch.isfinite(total.detach()) + ~torch.isfinite(norm))
        self.optimizer.found_inf = verdict.found_inf  # type: ignore[attr-defined]
        self.optimizer.step()
        if verdict.is_bad():
            raise DivergedError("a step that is timed is not finite")
        self.optimizer.zero_grad(set_to_none=True)
        self.taken += 1

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision, if the settings want it."""
        precision = PRECISIONS[self.settings.precision]
        return torch.autocast(self.settings.device.type, dtype=precision, enabled=precision is not torch.float32)

    def contender(self, name: str, resident_bytes: int = 0) -> Contender:
        """Its entry in a comparison."""
        run = timing(self.step, num_images=self.settings.batch_size, device=self.settings.device)
        return Contender(name=name, run=run, resident_bytes=resident_bytes)


def method_steps(model: str, settings: StepSettings) -> Iterator[Comparison]:
    """A2MIM and SimMIM against the plain mean loss, and A2MIM with against without its frequency loss."""
    for method in sorted(method.name for method in METHODS):
        config = published_config(model, method, settings)
        torch.manual_seed(0)
        net = _to(build_model(config), settings.device, channels_last=None)
        optimizer = build_optimizer(config, net)
        masked = Steps(config, net, optimizer, settings).contender(f"{method} loss")
        plain = Steps(config, PlainMean(net), optimizer, settings).contender("plain mean loss")
        yield compare(f"{method} step, {model}", masked, plain, pairs=settings.pairs)
        if getattr(getattr(config.options, "loss", None), "frequency_weight", 0):
            yield _frequency_share(model, config, net, optimizer, settings)


def _frequency_share(
    model: str, config: PretrainConfig, net: Any, optimizer: torch.optim.Optimizer, settings: StepSettings
) -> Comparison:
    """One network, its frequency loss switched on and off."""
    steps, options = Steps(config, net, optimizer, settings), cast(a2mim.Options, config.options)
    without = partial(a2mim.losses, replace(options.loss, frequency_weight=0.0))
    whole = net.terms

    def off() -> None:
        net.terms = without
        steps.step()
        net.terms = whole

    size = settings.batch_size
    with_it = steps.contender("with frequency loss")
    without_it = Contender(name="without", run=timing(off, num_images=size, device=settings.device))
    return compare(f"a2mim frequency loss, {model}", with_it, without_it, pairs=settings.pairs)


def precision_steps(model: str, settings: StepSettings) -> Iterator[Comparison]:
    """The A2MIM step in bfloat16 and channels_last against plain float32, and what else makes it faster.

    On a GPU: channels_last and compilation alone. On a CPU each contender has a process of its own: the first
    comparison is of torch as it comes; the second one adds that runs keep freed memory (engine/allocator.py).
    """
    plain: dict[str, Any] = {"precision": "float32", "channels_last": False, "compiled": False}
    fast: dict[str, Any] = {"precision": "bfloat16", "channels_last": True, "compiled": False}
    if settings.device.type == "cuda":
        yield _variants(model, settings, fast, plain)
        yield _variants(model, settings, fast, {**fast, "channels_last": False})
        yield _variants(model, settings, {**fast, "compiled": True}, fast)
        return
    with ExitStack() as processes:
        slow, quick, kept = (
            processes.enter_context(isolated(partial(variant, model, settings, **options), keep_memory=keep))
            for options, keep in ((plain, False), (fast, False), (fast, True))
        )
        yield compare(f"a2mim step, {model}", quick, slow, pairs=settings.pairs)
        kept = replace(kept, name=f"{kept.name} + memory kept")
        yield compare(f"a2mim step, {model}", kept, slow, pairs=settings.pairs)


def _variants(model: str, settings: StepSettings, a: dict[str, Any], b: dict[str, Any]) -> Comparison:
    first, second = (variant(model, settings, **options) for options in (a, b))
    return compare(f"a2mim step, {model}", first, second, pairs=settings.pairs)


def variant(model: str, settings: StepSettings, *, precision: str, channels_last: bool, compiled: bool) -> Contender:
    """The A2MIM step of a network of its own. Transformers have no use for channels_last and keep their layout."""
    settings = replace(settings, precision=precision)
    before = _allocated(settings.device)
    config = published_config(model, "a2mim", settings)
    torch.manual_seed(0)
    net = build_model(config)
    channels_last = channels_last and net.encoder.is_cnn
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    net.normalise = FixedLayout(memory_format)
    net = _to(net, settings.device, channels_last=channels_last)
    optimizer = build_optimizer(config, net)
    steps = Steps(config, torch.compile(net) if compiled else net, optimizer, settings)  # type: ignore[arg-type]
    steps.step()  # the optimizer's moments exist from now on
    names = [precision, *(["channels_last"] if channels_last else []), *(["compiled"] if compiled else [])]
    return steps.contender(" + ".join(names), resident_bytes=_allocated(settings.device) - before)


def _to(net: Any, device: torch.device, *, channels_last: bool | None) -> Any:
    """On the device in training mode; channels_last None is what a run chooses (engine/training/state.py)."""
    wanted = net.encoder.is_cnn if channels_last is None else channels_last
    net = net.to(device).train()
    return net.to(memory_format=torch.channels_last) if wanted else net


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
