"""Parameter groups of a segmentation run: which decay, and at which rate each layer of the encoder learns."""

from typing import Any

import torch
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from torch import nn

from backbones.layers import by_blocks, by_convnext_stages, from_the_end
from engine.training import optim
from segmentation.config import OptimizerConfig

_ENCODER = "backbone.encoder.net."
_TABLES = ("pos_embed", "cls_token", "reg_token", "relative_position_bias_table")


def parameter_groups(segmentor: nn.Module, options: OptimizerConfig, learning_rate: float) -> list[dict[str, Any]]:
    """The trainable parameters by weight decay and learning rate; the heads learn at the full rate.

    Args:
        segmentor: an EncoderDecoder around a SuiteEncoder.
        options: weight decay, layer decay and what they spare.
        learning_rate: of the heads.

    Returns:
        Groups {"params", "names", "lr", "base_rate", "weight_decay"}.

    Raises:
        BackboneError: stage_layers with an encoder that is no ConvNeXt.
    """
    net: nn.Module = segmentor.backbone.encoder.net  # type: ignore[union-attr, assignment]
    scales = _rate_scales(net, options)
    return optim.group_parameters(
        segmentor.named_parameters(),
        learning_rate=learning_rate,
        rate=lambda name, _: scales.get(name.removeprefix(_ENCODER), 1.0) if name.startswith(_ENCODER) else 1.0,
        decay=lambda name, parameter: 0.0 if _is_spared(name, parameter, options.no_decay) else options.weight_decay,
    )


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class SuiteOptimizerConstructor:
    """The same optimizer for MMSegmentation's Runner, from a dumped configuration.

    Args:
        optim_wrapper_cfg: its `optimizer` holds type, lr and the like; everything else goes to the wrapper.
        paramwise_cfg: the fields of OptimizerConfig.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any]) -> None:
        self.wrapper = dict(optim_wrapper_cfg)
        self.optimizer = dict(self.wrapper.pop("optimizer"))
        self.options = OptimizerConfig(**{**paramwise_cfg, "betas": tuple(paramwise_cfg["betas"])})

    def __call__(self, model: nn.Module) -> Any:
        """The wrapped optimizer for `model`, an EncoderDecoder or a distributed wrapper of one."""
        inner: nn.Module = model.module if isinstance(getattr(model, "module", None), nn.Module) else model  # type: ignore[assignment]
        groups = parameter_groups(inner, self.options, self.optimizer["lr"])
        optimizer = getattr(torch.optim, self.optimizer["type"])
        options = {name: value for name, value in self.optimizer.items() if name != "type"}
        return OPTIM_WRAPPERS.build({"type": "OptimWrapper", **self.wrapper, "optimizer": optimizer(groups, **options)})


def _is_spared(name: str, parameter: nn.Parameter, rule: str) -> bool:
    """Whether a parameter has no weight decay; OptimizerConfig.no_decay says what the rules are."""
    if rule == "none":
        return False
    if name.endswith(_TABLES):
        return True
    if rule == "norms":
        return name.startswith(_ENCODER) and "norm" in name
    return parameter.ndim <= 1 or name.endswith(".bias")


def _rate_scales(net: nn.Module, options: OptimizerConfig) -> dict[str, float]:
    """The factor on the learning rate of every parameter of the encoder that layer decay slows down, by name."""
    if options.layer_decay == 1:
        return {}
    decay = options.layer_decay  # the heads learn at the full rate, one layer further on than the encoder's last
    if options.stage_layers:
        after = from_the_end(by_convnext_stages(net, options.stage_layers), options.stage_layers)
        return {name: decay ** (number + 1) for name, number in after.items()}
    return {name: decay * decay**number for name, number in from_the_end(by_blocks(net)).items()}
