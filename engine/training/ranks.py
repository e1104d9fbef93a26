"""How a model is prepared for several ranks: batch norm over all of them, nothing replaced that is not understood."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d, _BatchNorm

from engine.errors import ConfigError

_PLAIN = (BatchNorm1d, BatchNorm2d, BatchNorm3d)


def prepare_for_ranks(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with its normalisation over all ranks, parameters unchanged.

    A module with a method `prepare_for_ranks()` says itself what stands in its place and in its children's, on any
    device. Elsewhere, on a GPU, torch's BatchNorm layers and timm's, which has an activation in it, become their
    synchronised forms; a CPU has none, and there they stay.

    Args:
        model: of any rank.
        device: of its rank.

    Raises:
        ConfigError: a layer is another kind of BatchNorm and does not say what becomes of it, or the model did not keep
            its parameters, which the optimizer holds.
    """
    before = {id(p) for p in model.parameters()}
    prepared = _prepared("", model, synchronise=device.type == "cuda")
    if {id(p) for p in prepared.parameters()} != before:
        raise ConfigError(
            f"{type(model).__name__}: prepare_for_ranks() must keep the parameters; some were replaced, and the "
            "optimizer would not train them"
        )
    return prepared


def _prepared(name: str, module: Any, *, synchronise: bool) -> nn.Module:
    if callable(getattr(module, "prepare_for_ranks", None)):
        own: nn.Module = module.prepare_for_ranks()
        return own
    for child_name, child in list(module.named_children()):
        prepared = _prepared(f"{name}.{child_name}".lstrip("."), child, synchronise=synchronise)
        if prepared is not child:
            setattr(module, child_name, prepared)
    if not synchronise or not isinstance(module, _BatchNorm) or isinstance(module, nn.SyncBatchNorm):
        kept: nn.Module = module
        return kept
    if type(module) in _PLAIN:
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call,no-any-return]
    return _timms(name, module)


def _timms(name: str, module: _BatchNorm) -> nn.Module:
    from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm  # timm takes seconds, most need it not

    if type(module) is BatchNormAct2d:
        return convert_sync_batchnorm(module)  # type: ignore[no-untyped-call,no-any-return]
    raise ConfigError(
        f"{name or 'the model'} is a {type(module).__name__}, a kind of BatchNorm that this suite does not know how to "
        "synchronise over ranks without changing what it computes: give it a method prepare_for_ranks() that returns "
        "the module to use on several ranks (itself, if it needs no change), or train on one GPU"
    )
