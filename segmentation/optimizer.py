"""The optimizer of a segmentation run: which parameters decay, and at which rate each layer of the encoder learns."""

from typing import Any

import torch
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from timm.optim._param_groups import param_groups_layer_decay
from torch import nn

from engine.errors import ConfigError
from engine.training import optim
from segmentation.config import OptimizerConfig, SegmentationConfig

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
        ConfigError: stage_layers with an encoder that is no ConvNeXt.
    """
    net: nn.Module = segmentor.backbone.encoder.net  # type: ignore[union-attr, assignment]
    scales = _rate_scales(net, options)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in segmentor.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = scales.get(name.removeprefix(_ENCODER), 1.0) if name.startswith(_ENCODER) else 1.0
        decay = 0.0 if _is_spared(name, parameter, options.no_decay) else options.weight_decay
        rate = learning_rate * scale
        empty: dict[str, Any] = {"params": [], "names": [], "lr": rate, "base_rate": rate, "weight_decay": decay}
        group = groups.setdefault((scale, decay), empty)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build_optimizer(segmentor: nn.Module, config: SegmentationConfig) -> torch.optim.Optimizer:
    """The recipe's optimizer over the trainable parameters."""
    groups = parameter_groups(segmentor, config.optimizer, config.learning_rate)
    return optim.build(config.optimizer, groups, config.learning_rate)


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
    if options.stage_layers:
        return {name: options.layer_decay ** _stage_exponent(name, options.stage_layers) for name in _names(net)}
    # timm numbers the layers (for a ViT: patch and position embedding, then the blocks) and gives the last one the full
    # rate; here the heads have it, one layer further on.
    groups = param_groups_layer_decay(net, layer_decay=options.layer_decay)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    return {
        names[id(parameter)]: options.layer_decay * group["lr_scale"]
        for group in groups
        for parameter in group["params"]
    }


def _stage_exponent(name: str, num_layers: int) -> int:
    parts = name.split(".")
    if parts[0] == "stem" or (parts[0] == "stages" and parts[2] == "downsample"):
        return num_layers + 1
    if parts[0] == "stages" and parts[2] == "blocks":
        return num_layers - int(parts[1])
    raise ConfigError(f"optimizer.stage_layers: the rule is ConvNeXt's, and {name} is no parameter of one; use 0")


def _names(net: nn.Module) -> list[str]:
    return [name for name, parameter in net.named_parameters() if parameter.requires_grad]
