"""Images/s of pre-training beside the bare encoder's forward and backward pass, and how much of the card that is."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from backbones import build_backbone
from benchmarks.speed.gpu.part import Part
from benchmarks.speed.step import Steps, StepSettings, build_optimizer, published_config
from benchmarks.speed.timing import Contender, compare, seconds_of, timing
from pretrain.build import build_model

METHODS = ("a2mim", "simmim")


class BareSteps(Steps):
    """The encoder's forward and backward pass on images that are float32 and normalised: no loss, no optimizer."""

    def __init__(self, encoder: nn.Module, steps: Steps) -> None:
        self.encoder, self.settings, self.config = encoder, steps.settings, steps.config
        generator = torch.Generator(steps.settings.device).manual_seed(0)
        images = torch.randn(steps.batch["image"].shape, generator=generator, device=steps.settings.device)
        self.images_bchw = images.to(memory_format=torch.channels_last)

    def step(self) -> None:
        """Forward, backward from the mean of the last map."""
        with self.autocast():
            latent: Tensor = self.encoder(self.images_bchw)
        latent.float().mean().backward()  # type: ignore[no-untyped-call]
        for parameter in self.encoder.parameters():
            parameter.grad = None


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that the operations called inside read and write, views excepted."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in str(func):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
            self.num_bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return out


def run(part: Part) -> None:
    """The card's own rates, then every network."""
    matrix, memory = card_rates(part)
    for model in part.models:
        with part.record.attempt(model):
            _model(part, model, matrix, memory)
        if not part.small:
            torch.cuda.empty_cache()


def card_rates(part: Part) -> tuple[float, float]:
    """Measured: bfloat16 matrix products in FLOP/s, copying in bytes/s (read and written)."""
    side, count = (256, 2**20) if part.small else (8192, 2**29)
    a, b = (torch.randn(side, side, device=part.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = min(seconds_of(lambda: a @ b, 5, part.device) / 5 for _ in range(4))
    matrix = 2 * side**3 / seconds
    source = torch.zeros(count, dtype=torch.bfloat16, device=part.device)
    target = torch.empty_like(source)
    seconds = min(seconds_of(lambda: target.copy_(source), 5, part.device) / 5 for _ in range(4))
    memory = 4 * count / seconds
    part.record.add(f"bfloat16 matrix product, {side}", matrix / 1e12, "TFLOP/s")
    part.record.add("copy in device memory, read + written", memory / 1e12, "TB/s")
    return matrix, memory


def method_steps(part: Part, model: str, method: Any, batch_size: int) -> Steps:
    """Whole training steps of a published configuration, in bfloat16 and channels_last for CNNs, as runs have them."""
    settings = StepSettings(
        device=part.device, batch_size=batch_size, image_size=part.image_size, precision="bfloat16", pairs=5
    )
    config = published_config(model, method, settings)
    torch.manual_seed(0)
    net: Any = build_model(config).to(part.device).train()
    if net.encoder.is_cnn:
        net = net.to(memory_format=torch.channels_last)
    return Steps(config, net, build_optimizer(config, net), settings)


def bare_steps(steps: Steps) -> BareSteps:
    """The encoder of the same configuration, alone."""
    config, device = steps.config, steps.settings.device
    encoder: Any = build_backbone(config.model, image_size=config.image_size, drop_path=config.drop_path)
    encoder = encoder.to(device).train()
    return BareSteps(encoder.to(memory_format=torch.channels_last) if encoder.is_cnn else encoder, steps)


def _model(part: Part, model: str, matrix: float, memory: float) -> None:
    batch_size = 2 if part.small else 256
    for method in METHODS:
        steps = method_steps(part, model, method, batch_size)
        bare = bare_steps(steps)
        flops, num_bytes = _work(steps)
        contenders = [_held(part, steps, f"{method} step"), _held(part, bare, "bare encoder")]
        found = compare(f"{method} {model}", *contenders, pairs=1 if part.small else 5).row()
        rate, name = found["images_per_second_a"], f"{method} {model}, batch {batch_size}"
        part.record.add(f"{name}", rate, "images/s", note=f"bare encoder {found['images_per_second_b']:.4g}")
        part.record.add(
            f"{name}: time over the bare encoder's",
            found["extra_time"],
            note=f"speed ratio {found['speed_a_over_b']:.3f}, {found['quartile_1']:.3f} to {found['quartile_3']:.3f}",
        )
        part.record.add(f"{name}: of the matrix rate", flops * rate / batch_size / matrix)
        part.record.add(
            f"{name}: of the memory bandwidth", num_bytes * rate / batch_size / memory, note="upper estimate"
        )
        if not part.small:
            peaks = found["peak_bytes_a"], found["peak_bytes_b"]
            part.record.add(f"{name}: peak memory", peaks[0] / 1e9, "GB", note=f"bare encoder {peaks[1] / 1e9:.3g}")


def _held(part: Part, steps: Steps, name: str) -> Contender:
    """A contender with what it keeps between its steps: weights, images, and the optimizer's moments if it has one."""
    steps.step()
    module, state = (steps.encoder, {}) if isinstance(steps, BareSteps) else (steps.model, steps.optimizer.state)
    moments = [value for values in state.values() for value in values.values() if isinstance(value, Tensor)]
    kept = [
        *module.parameters(),
        *module.buffers(),
        *moments,
        steps.images_bchw if isinstance(steps, BareSteps) else steps.batch["image"],
    ]
    run = timing(steps.step, num_images=steps.settings.batch_size, device=part.device)
    return Contender(name=name, run=run, resident_bytes=sum(t.numel() * t.element_size() for t in kept))


def _work(steps: Steps) -> tuple[float, float]:
    """Floating-point operations of a step's convolutions and products, and bytes that its operations read and write."""
    steps.step()
    with FlopCounterMode(display=False) as flops:
        steps.step()
    with Traffic() as traffic:
        steps.step()
    return float(flops.get_total_flops()), float(traffic.num_bytes)
