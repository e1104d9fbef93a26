"""What a pre-training step costs: the methods against a plain mean loss, and precisions, layouts and compilation.

Shapes: B batch, S image size, g mask cells along a side.
"""

import atexit
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed.isolated import isolated
from benchmarks.speed.timing import Comparison, Contender, compare, timing
from engine.data.order import SamplePlan
from engine.loop import complete_step, take_step
from engine.run.open import open_run
from engine.task import loop_settings
from engine.training import optim
from engine.training.state import PRECISIONS, TrainingState, set_backends
from pretrain.build import build_model
from pretrain.config import PretrainConfig
from pretrain.masking import cell_mask
from pretrain.methods import METHODS, a2mim
from pretrain.recipes import for_model
from pretrain.targets import Normalise
from pretrain.train import compute_losses, groups_of

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
        epochs=10**6,  # the rate stays what it is
        batch_size=settings.batch_size,
        image_size=settings.image_size,
        schedule=replace(config.schedule, kind="cosine", warmup_epochs=0, milestones=()),
        optimizer=replace(config.optimizer, base_learning_rate=LEARNING_RATE, base_batch=settings.batch_size),
    )


def make_batch(config: PretrainConfig, settings: StepSettings) -> dict[str, Tensor]:
    """Uint8 images (B, 3, S, S) and masks (B, g, g) of random numbers, on the device, as the loader's lie in memory."""
    rng = np.random.default_rng(0)
    size, mask = settings.image_size, config.mask
    images = torch.from_numpy(rng.integers(0, 256, (settings.batch_size, size, size, 3), dtype=np.uint8))
    masks = [cell_mask(rng, size, mask.cell_size, mask.mask_ratio) for _ in range(settings.batch_size)]
    batch = {"image": images.permute(0, 3, 1, 2), "mask": torch.from_numpy(np.stack(masks))}
    return {name: tensor.to(settings.device) for name, tensor in batch.items()}


def build_optimizer(config: PretrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that a run of the configuration has."""
    return optim.build(config.optimizer, groups_of(config, model), config.learning_rate)


_CLAIMED = ExitStack()  # the run folders that training states belong to; nothing is written into them after their start
atexit.register(_CLAIMED.close)


class Steps:
    """The loop's own training steps (engine/loop.py) on one batch that stays on the device.

    Args:
        config: the optimizer's rules are taken from it.
        model: (uint8 images, mask) -> named losses; on the device already.
        optimizer: over its parameters.
        settings: batch, device, precision; the device is the one that runs take.
    """

    def __init__(
        self, config: PretrainConfig, model: nn.Module, optimizer: torch.optim.Optimizer, settings: StepSettings
    ) -> None:
        self.config, self.optimizer, self.settings = config, optimizer, settings
        self.batch = make_batch(config, settings)
        plan = SamplePlan(settings.batch_size, settings.batch_size, seed=0)
        loop = replace(loop_settings(config, plan, channels_last=False), precision=settings.precision, compile=False)
        folder = Path(_CLAIMED.enter_context(TemporaryDirectory()))
        claimed = replace(config, data=replace(config.data, root=str(folder)))
        run = _CLAIMED.enter_context(open_run(folder / "run", claimed, package="pretrain", recipe="any"))
        self.state = TrainingState(run, model, optimizer, loop)

    @property
    def model(self) -> nn.Module:
        """What is called with a batch."""
        return self.state.forward

    @model.setter
    def model(self, model: nn.Module) -> None:
        """Call this instead, the same one compiled."""
        self.state.forward = model

    def step(self) -> None:
        """One step with all that a run's has: seeding, schedule, meters, verdict, clipping, the optimizer."""
        set_backends(self.settings.precision, self.settings.device)
        batch = self.state.transfer.start(self.batch)
        complete_step(self.state, compute_losses, take_step(self.state, compute_losses, [batch]))

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
