"""Linear probe: a classifier on the features of an encoder that does not move. B batch, K classes, H W pixels."""

from typing import Any, cast

import torch
from torch import Tensor, nn


class LinearProbe(nn.Module):
    """A timm network of which only the last linear layer trains.

    Everything before it is fixed: no gradients, evaluation mode even in `train()`, so that batch norm keeps the running
    statistics of pre-training and dropout and stochastic depth are off.

    Args:
        network: a timm network with a linear classifier.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
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
        logits: Tensor = self.network.get_classifier()(pooled)
        return logits
