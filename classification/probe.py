"""Linear probe: a classifier on the features of an encoder that does not move. B batch, K classes, H W pixels."""

from typing import Any, cast

import torch
from torch import Tensor, nn

_EPSILON = 1e-6  # MAE's


class LinearProbe(nn.Module):
    """A timm network of which only the last linear layer trains.

    Everything before it is fixed: no gradients, evaluation mode even in `train()`, so that batch norm keeps the running
    statistics of pre-training and dropout and stochastic depth are off.

    Args:
        network: a timm network with a linear classifier.
        standardise: bring every feature to mean 0 and variance 1 before the classifier.
    """

    def __init__(self, network: nn.Module, *, standardise: bool = False) -> None:
        super().__init__()
        self.norm: nn.Module | None = None
        if standardise:
            features = cast(Any, network).get_classifier().in_features
            self.norm = nn.BatchNorm1d(features, eps=_EPSILON, affine=False)
        self.network = cast(Any, network.requires_grad_(False))
        self.network.get_classifier().requires_grad_(True)
        self.train()

    def train(self, mode: bool = True) -> "LinearProbe":
        """Set the mode of everything but the network, which stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, images_bchw: Tensor) -> Tensor:
        """Logits (B, K) of normalised images (B, 3, H, W)."""
        with torch.no_grad():
            pooled = self.network.forward_head(self.network.forward_features(images_bchw), pre_logits=True)
        features = pooled if self.norm is None else self.norm(pooled.float())
        logits: Tensor = self.network.get_classifier()(features)
        return logits


def folded(state: dict[str, Tensor], classifier: str) -> dict[str, Tensor]:
    """The state of a probe's network that computes the same without the norm: W' = W / s, b' = b - W' m, where m and s
    are the running mean and standard deviation of the features.

    Args:
        state: of a LinearProbe.
        classifier: how the names of the network's classifier begin.
    """
    network = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
    if "norm.running_var" not in state:
        return network
    weight = network[f"{classifier}weight"] / (state["norm.running_var"] + _EPSILON).sqrt()
    bias = network[f"{classifier}bias"] - weight @ state["norm.running_mean"]
    return {**network, f"{classifier}weight": weight, f"{classifier}bias": bias}
