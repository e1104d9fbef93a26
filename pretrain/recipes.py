"""Complete pre-training configurations by name: those of every method's file, a demo, and any network.

Sources: A2MIM = configs/openmixup/pretrain of Westlake-AI/A2MIM (ccca6dc); OpenMixup = configs/selfsup of
Westlake-AI/openmixup, followed where A2MIM's copy does not resolve. "Released" is what that code does, which is what
made the published numbers; where the paper's text differs, a `-paper` recipe follows the text. Common to all:

- ImageNet-1K, global batch 2048, AdamW (0.9, 0.999), weight decay 0.05, 10 warm-up epochs, 32-pixel cells, 60 % rounded
  up. Learning rate = base rate x batch / 512.
- Weight decay exemptions match names, so that CNNs decay the scales of shortcut batch norms and of ConvNeXt's layer
  norms.
- Precision: bfloat16 with float32 losses everywhere. The released files use float32 for A2MIM's ResNets and ViTs and
  float16 for the rest; `--precision float32` follows the former.
- Expected top-1 is ImageNet after fine-tuning (A2MIM README, one seed, best of the last ten epochs), not a pre-training
  metric. Cost counts floating-point operations, 6 x multiply-adds of the encoder x images; hours were not measured.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from backbones import PUBLISHED, family
from backbones.architectures import SMALL
from backbones.small import small_network
from engine.data.survey import Asked, look, say
from engine.deviations import with_deviations
from pretrain.config import MethodOptions, PretrainConfig
from pretrain.methods import METHODS, find_method
from pretrain.own import fit


def for_model(model: str = "r50", method: str = "a2mim") -> PretrainConfig:
    """Any network by its published or timm name, under the published rules of its family, at the published length.

    What the rules of a family are stands in the method's file (pretrain/methods), in `for_family`.

    Raises:
        ConfigError: no method has this name, or the method does not take the network's family.
        BackboneError: no network has this name.
    """
    return find_method(method).for_family(family(model), model)


def own(
    model: str = "r50",
    method: str = "a2mim",
    data_root: str = "",
    steps: str = "",
    batch_size: str = "",
    image_size: str = "",
    data_exclude: str = "",
) -> PretrainConfig:
    """Images of your own: size, batch, length and rate follow from the data set, and the command says why.

    The family's published token, losses and decay rules; the image size is the images' own (64 to 224 pixels), a batch
    leaves an epoch at least sixteen steps, and the length is 100 epochs, but 3,000 to 50,000 steps. `--steps N`,
    `--batch-size N`, `--image-size N` say otherwise, and the rest follows. A folder of class folders without one for
    validation is split as `python -m classification own` splits it. Fewer than 200 images are refused: start from
    released weights then.

    Raises:
        ConfigError: there is no such method, or a number is none.
        DataError: there are too few images, or none.
    """
    base = for_model(model, method)
    asked = Asked.of(steps=steps, batch_size=batch_size, image_size=image_size)
    if not data_root:  # help, and the refusal that names it
        return base
    seen, val_share = look(data_root, data_exclude, labelled=False)
    config, reasons = fit(base, seen, val_share, asked)
    say(f"{data_root}: {seen}", reasons)
    return replace(config, data=replace(config.data, root=data_root, exclude=data_exclude))


def demo(model: str = "r50", method: str = "a2mim") -> PretrainConfig:
    """Two minutes on a CPU core with the generated scenes: shows that it runs, not what a method is worth.

    The family's published token, losses and decay rules (`--model` any published or timm name, `--method` any method),
    at 64 pixels and cells of 16, with a rate that moves the weights in two hundred steps: 1e-3, Transformers 3e-4 (at
    1e-3 a ViT's gradient vanished and its loss rose, docs/studies.md). Where a cell cannot be below the published 32
    pixels (A2MIM on ConvNeXt, whose token enters at stride 32): at 128 pixels. A network that takes images of one size
    only gets those.
    """
    config = for_model(model, method)
    image_size, cell_size = (64, 16) if find_method(method).smallest_cell(config) <= 16 else (128, 32)
    if model not in PUBLISHED:
        from backbones.suggest import takes  # here: it needs torch

        if not takes(model, image_size):
            image_size, cell_size = config.image_size, config.mask.cell_size
    rate = 3e-4 if family(model) in ("vit", "swin") else 1e-3
    return replace(
        config,
        epochs=8,
        batch_size=32,
        image_size=image_size,
        drop_path=0.0,
        checkpoint_every=100,
        log_every=5,
        visualize_every_epochs=4,
        data=replace(config.data, num_workers=1),
        mask=replace(config.mask, cell_size=cell_size),
        options=config.options.for_demo(),
        optimizer=replace(config.optimizer, base_learning_rate=rate, base_batch=32),
        schedule=replace(config.schedule, kind="cosine", warmup_epochs=0.5, warmup_start=0.0, milestones=()),
    )


def small(model: str = "resnet18", method: str = "a2mim", image_size: int = 32) -> PretrainConfig:
    """Pictures of 32 to 96 pixels (CIFAR, STL-10, Tiny-ImageNet, Imagenette shrunk): hours on one GPU, or less.

    The method's rules for the network's family, with what belongs to 224 pixels scaled: `--model resnet18`, `r50`,
    `convnext_atto` and `vit_tiny` stand for networks with a stem for `--image-size` (backbones/small.py); eight cells
    along a side, or as many as the network's map allows; batch 256, AdamW at 1e-3, cosine after 5 % of warm-up; crops
    of 67 % to 100 %, one spectrum for the whole batch. ViTs: `--model vit_tiny_p2` for patches of 2.

    Source: none. Expected: with 1 to 10 % of the labels and little data more than from scratch; how much is measured in
    docs/studies.md. Cost: 200 epochs of CIFAR-10 are 33 PFLOP for resnet18 and 10 PFLOP for convnext_atto.
    """
    size = int(image_size)
    config = for_model(small_network(model, size), method)
    config = replace(config, image_size=size, options=_before_module(config).for_demo())
    least = find_method(method).smallest_cell(config)
    cell = least * max(size // 8 // least, 1)
    while cell < size and size % cell:
        cell += least
    return replace(
        config,
        epochs=200,
        batch_size=256,
        drop_path=0.0,
        visualize_every_epochs=50,
        data=replace(config.data, num_workers=4, crop_scale=(0.67, 1.0)),
        mask=replace(config.mask, cell_size=cell),
        optimizer=replace(config.optimizer, base_learning_rate=1e-3, base_batch=256),
        schedule=replace(config.schedule, kind="cosine", warmup_epochs=10, warmup_start=0.0, milestones=()),
    )


def _before_module(config: PretrainConfig) -> MethodOptions:
    """The options, their token (where the method has one) before the module that the published index means in networks
    of 224 pixels: networks with a small stem have fewer maps of stride 4 and more to count from."""
    options: Any = config.options
    token, prefix = getattr(options, "token", None), {"resnet": "layer{}", "convnext": "stages.{}.blocks"}
    family_of_model = family(config.model)
    if token is None or config.model not in SMALL or family_of_model not in prefix:
        return config.options
    asked: Any = find_method(config.method).for_family(family_of_model, _NAMESAKE[family_of_model]).options
    index = asked.token.stage + (family_of_model == "resnet")  # timm counts a ResNet's layers from 1
    moved: MethodOptions = replace(options, token=replace(token, stage=prefix[family_of_model].format(index)))
    return moved


_NAMESAKE = {"resnet": "r50", "convnext": "convnext_t"}
"""Family -> a published network of it, whose recipe says where the token enters."""


RECIPES: dict[str, Callable[..., Any]] = with_deviations(
    {
        "own": own,
        "demo": demo,
        "any": for_model,
        "small": small,
        **{name: recipe for method in METHODS for name, recipe in method.recipes.items()},
    }
)
"""Recipe name -> function returning its configuration; the function's parameters are flags of the command line."""
